#!/usr/bin/env bash
# Trains on the log so far and replaces the run that the service reads. For cron:
#   15 3 * * * /opt/metatl/retrain.sh /srv/metatl/clicks.csv /srv/metatl/shop
# A broken row is left out. If training fails, the old run stays; a run that was interrupted is continued.
set -euo pipefail

data=$1
run=$2
metatl=${METATL:-metatl}

"$metatl" train --data "$data" --out "$run" --bad-rows skip --overwrite
