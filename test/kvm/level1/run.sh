#!/bin/sh
# In level 1, which has a KVM: runs the scenarios. viommu.settings= names a file of settings.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run XDG_RUNTIME_DIR=/run
for word in $(cat /proc/cmdline); do
  case "$word" in
    viommu.settings=*) settings=${word#*=} ;;
    viommu.node=*) node=${word#*=} ;;
  esac
done
[ -c /dev/kvm ] || { echo 'VIOMMU-L1: fail reason="no /dev/kvm"'; exit 1; }
ip link set lo up
exec "$node" "$(dirname "$0")/main.mjs" "$settings"
