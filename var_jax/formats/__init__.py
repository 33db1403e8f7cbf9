"""Files of tensors: PyTorch's and safetensors, read without executing anything, written atomically."""
