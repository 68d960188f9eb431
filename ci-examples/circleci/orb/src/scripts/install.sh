#!/usr/bin/env bash
# Downloads machine-id; what does not have the SHA-256 asked for is never made executable.
set -euo pipefail

machine=$(uname -sm)
case $machine in
  "Linux x86_64") target=x86_64-unknown-linux-musl ;;
  "Linux aarch64") target=aarch64-unknown-linux-musl ;;
  "Darwin x86_64") target=x86_64-apple-darwin ;;
  "Darwin arm64") target=aarch64-apple-darwin ;;
  *) echo "machine-id: no release for $machine; build it and put it on the PATH" >&2; exit 2 ;;
esac
releases=https://github.com/your-org/machine-id/releases/download
url=${ORB_DOWNLOAD_URL:-$releases/v${ORB_VERSION#v}/machine-id-$target}

folder=$(mktemp -d)
curl --fail --silent --show-error --location --proto '=https' --retry 3 --max-time 120 \
  --output "$folder/machine-id" --url "$url" || {
  echo "machine-id: cannot download ${url%%[?]*}: is there such a release, for this machine?" >&2
  rm -r "$folder"
  exit 5
}

sum=$( (sha256sum "$folder/machine-id" || shasum -a 256 "$folder/machine-id") 2>/dev/null)
if [[ ${sum%% *} != "$ORB_SHA256" ]]; then
  echo "machine-id: not installed: its SHA-256 is ${sum%% *}, not $ORB_SHA256" >&2
  rm -r "$folder"
  exit 2
fi
chmod 755 "$folder/machine-id"
# On a line of its own, also where an earlier step left its last one without an end.
printf '\nexport PATH=%q:%s\n' "$folder" "\$PATH" >>"$BASH_ENV"
"$folder/machine-id" --version
