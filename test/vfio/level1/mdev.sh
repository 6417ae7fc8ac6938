#!/bin/sh
# In level 1: makes a mediated device, the kernel's sample mtty, and gives it to a QEMU whose guest is behind our IOMMU.
# run.sh has read the settings and set the environment.
uuid=83b8f4f2-509f-382f-3c1e-e6bfe0fa1001
echo $uuid >/sys/class/mdev_bus/mtty/mdev_supported_types/mtty-2/create
device=/sys/bus/mdev/devices/$uuid
[ -d "$device/vfio-dev" ] || { say fail 'reason="no mediated device"'; exit 1; }
say mdev "uuid=$uuid" "cdev=$(ls "$device/vfio-dev")"
watch_descriptors "$(basename "$(readlink "$device/iommu_group")")" &
# shellcheck disable=SC2086 # words of arguments
"$NODE" "$PROJECT/dist/main.js" qemu --bridge "$BRIDGE" --qemu "$QEMU" --memory 256M $OPTIONS \
  --report /run/report.json -- -device "$DEVICE" $MACHINE -nodefaults -display none -serial stdio -no-reboot \
  -object iommufd,id=iommufd -device "vfio-pci,sysfsdev=$device,iommufd=iommufd" \
  -kernel "$KERNEL" -initrd "$INITRAMFS" -append "$APPEND viommu.run=mdev"
say qemu "status=$?" "seconds=$(up)"
