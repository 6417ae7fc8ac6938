# Everything to try it: daemon, QEMU with the bridge, Debian guest kernels. Runs the demo.
#   docker build -f docker/try.Dockerfile -t viommu-try .
#   docker run --rm viommu-try
#   docker run --rm viommu-try demo --arch arm64
# Without a Docker engine: docker/build.sh
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
# Behind a proxy with a certificate authority of its own: docker/build.sh says how.
ARG NODE_EXTRA_CA_CERTS
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates nodejs npm
WORKDIR /opt/viommu
COPY . .
ENV VIOMMU_CACHE=/opt/viommu-cache
# The set-up of the README. What only a build needs is left behind with this stage.
RUN node setup/run.mjs setup --series 6.12 \
 && npm prune --omit=dev --no-audit --no-fund \
 && rm -rf /opt/viommu-cache/apt* /opt/viommu-cache/logs /opt/viommu-cache/qemu-headers-* \
           /opt/viommu-cache/kernels/*/modules /opt/viommu-cache/kernels/*-amd64/vmlinuz

FROM ${BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nodejs qemu-system-x86 seabios qemu-system-arm \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/viommu /opt/viommu
COPY --from=build /opt/viommu-cache /opt/viommu-cache
ENV VIOMMU_CACHE=/opt/viommu-cache VIOMMU_PATHS=/opt/viommu-cache/paths.json
WORKDIR /opt/viommu
ENTRYPOINT ["node", "/opt/viommu/dist/main.js"]
CMD ["demo"]
