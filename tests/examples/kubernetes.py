"""What no schema knows of a pod's manifest: that the token is for the authority, and where the client looks for it."""

import sys

import yaml

TOKEN = "/var/run/secrets/tokens/machine-id"

for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        documents = list(yaml.safe_load_all(file))
    jobs = [document for document in documents if document["kind"] == "CronJob"]
    assert jobs, f"{path}: no CronJob"
    accounts = {
        (document["metadata"]["namespace"], document["metadata"]["name"])
        for document in documents
        if document["kind"] == "ServiceAccount"
    }
    for job in jobs:
        pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        account = (job["metadata"]["namespace"], pod["serviceAccountName"])
        assert account in accounts, f"{path}: no service account {account}"
        assert pod["automountServiceAccountToken"] is False, f"{path}: the API server's token is mounted"
        (container,) = pod["containers"]
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        tokens = {
            f"{mounts[volume['name']]}/{source['serviceAccountToken']['path']}": source["serviceAccountToken"]
            for volume in pod["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
        }
        assert tokens[TOKEN]["audience"] == environment["MACHINE_ID_AUTHORITY"], f"{path}: {tokens}"
        assert 600 <= tokens[TOKEN]["expirationSeconds"] <= 7200, f"{path}: {tokens}"
