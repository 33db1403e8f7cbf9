"""Networks and quantizers as pure functions of (params, inputs): no files, no devices, no flags."""
