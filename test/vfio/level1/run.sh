#!/bin/sh
# In level 1: gives a virtual function of the network card to a QEMU whose guest is behind our IOMMU, and compares what
# level 1's own IOMMU was told meanwhile with what our daemon asked for. VIOMMU_VFIO names a file of settings.
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

card=$(dirname "$(grep -l 0x10c9 /sys/bus/pci/devices/*/device | head -n 1)")
[ -d "$card" ] || { say fail 'reason="no igb card"'; exit 1; }
interface=$(ls "$card/net")
ip link set "$interface" up
ip addr add 192.168.7.1/24 dev "$interface"
echo 1 >"$card/sriov_numvfs"
ip link set "$interface" vf 0 mac 02:00:00:00:07:02
function=$(basename "$(readlink "$card/virtfn0")")
echo vfio-pci >"/sys/bus/pci/devices/$function/driver_override"
echo "$function" >/sys/bus/pci/drivers_probe
group=$(basename "$(readlink "/sys/bus/pci/devices/$function/iommu_group")")
[ -c "/dev/vfio/$group" ] || { say fail "reason=\"$function has no /dev/vfio/$group\""; exit 1; }
say function "address=$function" "group=$group" "seconds=$(up)"

tracing=/sys/kernel/tracing
echo 65536 >$tracing/buffer_size_kb
echo 1 >$tracing/events/iommu/map/enable
echo 1 >$tracing/events/iommu/unmap/enable
# Tells which of them are VFIO_IOMMU_MAP_DMA's: VFIO also maps and unmaps a little to try the IOMMU out.
echo 1 >$tracing/events/syscalls/sys_enter_ioctl/enable

# shellcheck disable=SC2086 # words of arguments
"$NODE" "$PROJECT/dist/main.js" qemu --bridge "$BRIDGE" --qemu "$QEMU" --memory 256M $OPTIONS \
  --report /run/report.json -- -device "$DEVICE" $MACHINE -nodefaults -display none -serial stdio -no-reboot \
  -device "vfio-pci,host=$function" -kernel "$KERNEL" -initrd "$INITRAMFS" \
  -append "$APPEND viommu.run=vf"
status=$?
echo 0 >$tracing/tracing_on
say qemu "status=$status" "seconds=$(up)"
"$NODE" "$here/compare.mjs" "$tracing/trace" /run/report.json
exit $status
