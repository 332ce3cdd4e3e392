#!/usr/bin/env bash
# Brings the run that the service reads up to the log so far, or trains it for the first time. For cron:
#   15 3 * * * /opt/metatl/retrain.sh /srv/metatl/clicks.csv /srv/metatl/shop
# A broken row is left out. If training fails, the old run stays; a run that was interrupted is continued.
set -euo pipefail

data=$1
run=$2
metatl=${METATL:-metatl}

if [ -e "$run/metrics.json" ]; then
  "$metatl" update "$run" --data "$data" --bad-rows skip
else
  "$metatl" train --data "$data" --out "$run" --all-data --bad-rows skip
fi
