"""The fields that documentation names, as far as launch/ uses their neighbourhood: what a YAML file there may hold.

A field is the path to it; `[]` goes into a list, `*` stands for names of one's own.
"""

# https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2/ ; below `template` it is a Job of
# https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/ with a pod of
# https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ ; the label of the queue is in
# https://kueue.sigs.k8s.io/docs/tasks/run/jobsets/ , the annotation in https://jobset.sigs.k8s.io/docs/concepts/
_POD = "spec.replicatedJobs[].template.spec.template.spec"
JOBSET = {
    "apiVersion": {"jobset.x-k8s.io/v1alpha2"},
    "kind": {"JobSet"},
    "metadata.name": None,
    "metadata.labels.kueue.x-k8s.io/queue-name": None,
    "metadata.annotations.alpha.jobset.sigs.k8s.io/exclusive-topology": {"cloud.google.com/gke-nodepool"},
    "spec.network.enableDNSHostnames": {True, False},
    "spec.network.publishNotReadyAddresses": {True, False},
    "spec.network.subdomain": None,
    "spec.failurePolicy.maxRestarts": None,
    "spec.failurePolicy.restartStrategy": {"Recreate", "BlockingRecreate", "InPlaceRestart"},
    "spec.failurePolicy.rules[].name": None,
    "spec.failurePolicy.rules[].action": {
        "FailJobSet",
        "RestartJobSet",
        "RestartJobSetAndIgnoreMaxRestarts",
        "RestartJob",
        "RestartJobAndIgnoreMaxRestarts",
    },
    "spec.failurePolicy.rules[].onJobFailureReasons[]": {
        "BackoffLimitExceeded",
        "DeadlineExceeded",
        "FailedIndexes",
        "MaxFailedIndexesExceeded",
        "PodFailurePolicy",
    },
    "spec.failurePolicy.rules[].onJobFailureMessagePatterns[]": None,
    "spec.failurePolicy.rules[].targetReplicatedJobs[]": None,
    "spec.suspend": {True, False},
    "spec.ttlSecondsAfterFinished": None,
    "spec.replicatedJobs[].name": None,
    "spec.replicatedJobs[].replicas": None,
    "spec.replicatedJobs[].template.spec.parallelism": None,
    "spec.replicatedJobs[].template.spec.completions": None,
    "spec.replicatedJobs[].template.spec.completionMode": {"Indexed", "NonIndexed"},
    "spec.replicatedJobs[].template.spec.backoffLimit": None,
    "spec.replicatedJobs[].template.spec.podFailurePolicy.rules[].action": {"FailJob", "FailIndex", "Ignore", "Count"},
    "spec.replicatedJobs[].template.spec.podFailurePolicy.rules[].onExitCodes.containerName": None,
    "spec.replicatedJobs[].template.spec.podFailurePolicy.rules[].onExitCodes.operator": {"In", "NotIn"},
    "spec.replicatedJobs[].template.spec.podFailurePolicy.rules[].onExitCodes.values[]": None,
    "spec.replicatedJobs[].template.spec.podFailurePolicy.rules[].onPodConditions[].type": None,
    "spec.replicatedJobs[].template.spec.podFailurePolicy.rules[].onPodConditions[].status": {
        "True",
        "False",
        "Unknown",
    },
    f"{_POD}.restartPolicy": {"Never", "OnFailure"},
    f"{_POD}.terminationGracePeriodSeconds": None,
    # https://cloud.google.com/kubernetes-engine/docs/how-to/tpus and .../docs/concepts/spot-vms
    f"{_POD}.nodeSelector.cloud.google.com/gke-tpu-accelerator": {
        "tpu-v4-podslice",
        "tpu-v5-lite-podslice",
        "tpu-v5p-slice",
        "tpu-v6e-slice",
        "tpu7x",
    },
    f"{_POD}.nodeSelector.cloud.google.com/gke-tpu-topology": None,
    f"{_POD}.nodeSelector.cloud.google.com/gke-spot": {"true"},
    f"{_POD}.tolerations[].key": {"google.com/tpu", "cloud.google.com/gke-spot"},
    f"{_POD}.tolerations[].operator": {"Exists", "Equal"},
    f"{_POD}.tolerations[].value": None,
    f"{_POD}.tolerations[].effect": {"NoSchedule", "PreferNoSchedule", "NoExecute"},
    f"{_POD}.serviceAccountName": None,
    f"{_POD}.containers[].name": None,
    f"{_POD}.containers[].image": None,
    f"{_POD}.containers[].command[]": None,
    f"{_POD}.containers[].args[]": None,
    f"{_POD}.containers[].env[].name": None,
    f"{_POD}.containers[].env[].value": None,
    f"{_POD}.containers[].resources.requests.google.com/tpu": None,
    f"{_POD}.containers[].resources.limits.google.com/tpu": None,
}

# https://kueue.sigs.k8s.io/docs/reference/kueue.v1beta2/ and .../docs/concepts/ of each kind
KUEUE = {
    "ResourceFlavor": {
        "apiVersion": {"kueue.x-k8s.io/v1beta2"},
        "kind": {"ResourceFlavor"},
        "metadata.name": None,
        "spec.nodeLabels.*": None,
        "spec.nodeTaints[].key": None,
        "spec.tolerations[].key": None,
    },
    "ClusterQueue": {
        "apiVersion": {"kueue.x-k8s.io/v1beta2"},
        "kind": {"ClusterQueue"},
        "metadata.name": None,
        "spec.namespaceSelector": None,
        "spec.resourceGroups[].coveredResources[]": None,
        "spec.resourceGroups[].flavors[].name": None,
        "spec.resourceGroups[].flavors[].resources[].name": None,
        "spec.resourceGroups[].flavors[].resources[].nominalQuota": None,
        "spec.resourceGroups[].flavors[].resources[].borrowingLimit": None,
    },
    "LocalQueue": {
        "apiVersion": {"kueue.x-k8s.io/v1beta2"},
        "kind": {"LocalQueue"},
        "metadata.name": None,
        "metadata.namespace": None,
        "spec.clusterQueue": None,
    },
}

# https://docs.skypilot.co/en/latest/reference/yaml-spec.html ; `recover_on_exit_codes` in
# https://docs.skypilot.co/en/latest/examples/managed-jobs.html
SKYPILOT = {
    "name": None,
    "workdir": None,
    "num_nodes": None,
    "resources.infra": None,
    "resources.accelerators": None,
    "resources.accelerator_args.runtime_version": None,
    "resources.accelerator_args.tpu_vm": {True, False},
    "resources.cpus": None,
    "resources.memory": None,
    "resources.use_spot": {True, False},
    "resources.disk_size": None,
    "resources.job_recovery.strategy": {"FAILOVER", "EAGER_NEXT_REGION"},
    "resources.job_recovery.max_restarts_on_errors": None,
    "resources.job_recovery.recover_on_exit_codes[]": None,
    "envs.*": None,
    "secrets.*": None,
    "setup": None,
    "run": None,
}
