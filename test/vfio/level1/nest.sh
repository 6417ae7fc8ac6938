#!/bin/sh
# In level 1, behind our VT-d: gives viommu-testdev to a program that puts guest tables on a nest parent of this kernel, then to
# a QEMU with our bridge, until the bridge has said what can be done with it.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run XDG_RUNTIME_DIR=/run
for word in $(cat /proc/cmdline); do
  case "$word" in
    viommu.settings=*) . "${word#*=}" ;;
  esac
done
device=$(dirname "$(grep -l 0x10d0 /sys/bus/pci/devices/*/device | head -n 1)")
address=$(basename "$device")
echo vfio-pci >"$device/driver_override"
echo "$address" >/sys/bus/pci/drivers_probe
echo "VIOMMU-L1: function address=$address driver=$(basename "$(readlink "$device/driver")")"
"$PROGRAM" "$address"

"$NODE" "$PROJECT/dist/main.js" qemu --bridge "$BRIDGE" --qemu "$QEMU" --memory 64M -- -S -M q35 -nodefaults -display none \
  -device viommu-vtd,caching-mode=on,timeout-ms=600000 -object iommufd,id=iommufd \
  -device "vfio-pci,host=$address,iommufd=iommufd" >/run/qemu.log 2>&1 &
process=$!
for _ in $(seq 120); do
  grep -q 'by iommufd' /run/qemu.log && break
  sleep 1
done
said=$(sed -n 's/.*viommu: \(.* by iommufd.*\)/\1/p' /run/qemu.log)
case "$said" in *'VT-d: can nest, PASIDs of '*', page requests') ok=yes ;; *) ok=no said=$(tail -n 1 /run/qemu.log) ;; esac
echo "VIOMMU-L1: nest check=bridge ok=$ok said=\"$said\""
kill "$process"
wait "$process"
