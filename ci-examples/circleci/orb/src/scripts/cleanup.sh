#!/usr/bin/env bash
# Wipes and revokes what `login` left in MACHINE_ID_DESTINATION. A job that succeeded must not fail for this.
set -euo pipefail

if ! command -v machine-id >/dev/null; then
  echo "machine-id is not installed, so there is nothing to clean up"
  exit 0
fi
machine-id cleanup ||
  echo "warning: machine-id cleanup failed with exit code $?; the certificates may stay valid until they expire" >&2
