#!/bin/sh
# In level 1: gives a virtual function of the network card to a QEMU whose guest is behind our
# IOMMU, and compares what level 1's own IOMMU was told with what our daemon asked for.
# VIOMMU_VFIO names a file of settings.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run XDG_RUNTIME_DIR=/run
here=$(dirname "$0")
say() {
  echo "VIOMMU-L1: $*"
}
up() {
  cut -d ' ' -f 1 /proc/uptime
}
# What QEMU holds of VFIO, once it has its device.
watch_descriptors() {
  while sleep 5; do
    for process in $(pidof qemu-system-x86_64 qemu-system-aarch64); do
      held=$(ls -l "/proc/$process/fd" 2>/dev/null)
      iommu=no cdev=no group=no
      case "$held" in *'-> /dev/iommu'*) iommu=yes ;; esac
      case "$held" in *'-> /dev/vfio/devices/'*) cdev=yes ;; esac
      case "$held" in *"-> /dev/vfio/$1"*) group=yes ;; esac
      [ "$cdev$group" = nono ] || { say held "iommu=$iommu" "cdev=$cdev" "group=$group"; return; }
    done
  done
}
for word in $(cat /proc/cmdline); do
  case "$word" in
    viommu.settings=*) . "${word#*=}" ;;
  esac
done
[ -z "$MDEV" ] || { . "$here/mdev.sh"; exit; }

. "$here/function.sh"

# What QEMU says of the function behind its own IOMMU, where that does not take it.
# shellcheck disable=SC2086 # words of arguments
[ -z "$STOCK" ] ||
  say stock "said=\"$(timeout 120 "$QEMU" $STOCK -S -m 64M -nodefaults -display none $attach 2>&1 | tail -n 1)\""

tracing=/sys/kernel/tracing
echo 65536 >$tracing/buffer_size_kb
echo 1 >$tracing/events/iommu/map/enable
echo 1 >$tracing/events/iommu/unmap/enable
# Tells which of them are VFIO_IOMMU_MAP_DMA's: VFIO also maps and unmaps a little to try the IOMMU out.
echo 1 >$tracing/events/syscalls/sys_enter_ioctl/enable
echo 1 >$tracing/events/syscalls/sys_exit_ioctl/enable

watch_descriptors "$group" &
# What iommufd pins counts as locked memory, unless who maps has CAP_IPC_LOCK.
with=
[ -z "$LOCKED" ] || { ulimit -l "$LOCKED"; with='setpriv --bounding-set=-ipc_lock'; }

# shellcheck disable=SC2086 # words of arguments
$with "$NODE" "$PROJECT/dist/main.js" qemu --bridge "$BRIDGE" --qemu "$QEMU" --memory 256M $OPTIONS \
  --report /run/report.json -- -device "$DEVICE" $MACHINE -nodefaults -display none -serial stdio -no-reboot \
  $attach -kernel "$KERNEL" -initrd "$INITRAMFS" \
  -append "$APPEND viommu.run=vf"
status=$?
echo 0 >$tracing/tracing_on
say qemu "status=$status" "seconds=$(up)"
"$NODE" "$here/compare.mjs" "$tracing/trace" /run/report.json
exit $status
