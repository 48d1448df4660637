#!/usr/bin/env bash
# Encode a folder on a Ray cluster, as one of its jobs: the driver runs there, and this machine may be switched off.
#   RAY_API_SERVER_ADDRESS=http://HEAD:8265 deploy/job.sh /shared/photos /shared/coded /shared/model.licq
# The paths are those of a file system that every machine of the cluster has. The same command again goes on where a
# job ended. Needs pip install 'ray[default]' where it is called, licquant[cluster] on the cluster only.
set -euo pipefail
photos=$1 coded=$2 model=$3

# A job finds its cluster by RAY_ADDRESS, so --cluster needs no --address.
ray job submit --no-wait --submission-id "encode-$(date +%s)" -- \
    licquant encode "$photos" --output "$coded" --model "$model" --cluster --json
