#!/usr/bin/env bash
# Builds the images: docker/build.sh [daemon|try]… [-- arguments for the builder]
# With a Docker or Podman engine that is all. Without one, as root on Debian: buildah, in chroot isolation, on a
# base image made of Debian's packages from this machine's own mirror by mmdebstrap.
# Behind a proxy with a certificate authority of its own, which this machine trusts:
#   docker/build.sh -- --volume /etc/ssl/certs:/etc/ssl/certs:ro \
#     --build-arg NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

release=trixie
base=localhost/viommu-base:$release

images=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  [ -f "docker/$1.Dockerfile" ] || { echo "docker/build.sh: there is no docker/$1.Dockerfile" >&2; exit 2; }
  images+=("$1")
  shift
done
[ "${1:-}" != -- ] || shift
[ ${#images[@]} -gt 0 ] || images=(daemon try)

name_of() {
  case "$1" in
    daemon) echo viommu ;;
    *) echo "viommu-$1" ;;
  esac
}

engine() {
  for candidate in docker podman; do
    if command -v "$candidate" >/dev/null && "$candidate" info >/dev/null 2>&1; then
      echo "$candidate"
      return
    fi
  done
}

with_engine() {
  for image in "${images[@]}"; do
    "$1" build -f "docker/$image.Dockerfile" -t "$(name_of "$image")" "${@:2}" .
  done
}

# In a subshell, so that the trap is its own.
make_base() (
  scratch=$(mktemp -d)
  trap 'rm -rf "$scratch"' EXIT
  node setup/print-sources.mjs "$release" >"$scratch/debian.sources"
  mmdebstrap --variant=minbase --include=ca-certificates "$release" "$scratch/base.tar" "$scratch/debian.sources"
  container=$(buildah from scratch)
  buildah add "$container" "$scratch/base.tar" / >/dev/null
  buildah config --cmd /bin/bash "$container"
  buildah commit --rm "$container" "$base"
)

with_buildah() {
  for tool in buildah mmdebstrap; do
    command -v "$tool" >/dev/null || {
      echo "docker/build.sh: no container engine and no $tool: apt-get install --no-install-recommends buildah mmdebstrap" >&2
      exit 1
    }
  done
  [ "$(id -u)" = 0 ] || { echo 'docker/build.sh: without an engine this needs root' >&2; exit 1; }
  buildah inspect --type image "$base" >/dev/null 2>&1 || make_base
  for image in "${images[@]}"; do
    buildah bud --layers --isolation chroot --build-arg "BASE=$base" --ignorefile "docker/$image.Dockerfile.dockerignore" \
      -f "docker/$image.Dockerfile" -t "$(name_of "$image")" "$@" .
  done
  buildah images
}

found=$(engine)
if [ -n "$found" ]; then
  with_engine "$found" "$@"
else
  with_buildah "$@"
fi
