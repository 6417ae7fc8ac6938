#!/bin/sh
# In level 1, behind our VT-d: gives viommu-testdev to a program that puts guest tables on a nest parent of this kernel; then a
# virtual function of the network card to a QEMU, whose guest is behind our VT-d and has its tables nested by this kernel.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run XDG_RUNTIME_DIR=/run
here=$(dirname "$0")
say() {
  echo "VIOMMU-L1: $*"
}
up() {
  cut -d ' ' -f 1 /proc/uptime
}
for word in $(cat /proc/cmdline); do
  case "$word" in
    viommu.settings=*) . "${word#*=}" ;;
  esac
done
device=$(dirname "$(grep -l 0x10d0 /sys/bus/pci/devices/*/device | head -n 1)")
address=$(basename "$device")
echo vfio-pci >"$device/driver_override"
echo "$address" >/sys/bus/pci/drivers_probe
say testdev "address=$address" "driver=$(basename "$(readlink "$device/driver")")"
"$PROGRAM" "$address"

. "$here/function.sh"
# shellcheck disable=SC2086 # words of arguments
"$NODE" "$PROJECT/dist/main.js" qemu --bridge "$BRIDGE" --qemu "$QEMU" --memory 256M --mode nest \
  --report /run/report.json -- -device "$DEVICE,scalable-mode=on" $MACHINE -nodefaults -display none -serial stdio -no-reboot \
  $attach -kernel "$KERNEL" -initrd "$INITRAMFS" -append "$APPEND intel_iommu=sm_on viommu.run=vf" 2>/run/qemu.log
status=$?
sed 's/^/VIOMMU-L1: note /' /run/qemu.log
say qemu "status=$status" "seconds=$(up)"
say report "$(tr -d '\n' </run/report.json)"
