# The daemon alone: `viommu serve` on a socket in /run/viommu, which a QEMU on the host connects to.
#   docker build -f docker/daemon.Dockerfile -t viommu .
#   docker run --rm -v /run/viommu:/run/viommu viommu
# Without a Docker engine: docker/build.sh
ARG BASE=debian:trixie-slim

FROM ${BASE} AS build
# Behind a proxy with a certificate authority of its own: docker/build.sh says how.
ARG NODE_EXTRA_CA_CERTS
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates nodejs npm \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/viommu
COPY . .
RUN node setup/run.mjs build \
 && npm prune --omit=dev --no-audit --no-fund

FROM ${BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nodejs \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/viommu/package.json /opt/viommu/LICENSE /opt/viommu/
COPY --from=build /opt/viommu/node_modules /opt/viommu/node_modules
COPY --from=build /opt/viommu/dist /opt/viommu/dist
WORKDIR /opt/viommu
VOLUME /run/viommu
ENTRYPOINT ["node", "/opt/viommu/dist/main.js"]
CMD ["serve", "--socket", "/run/viommu/viommu.sock"]
