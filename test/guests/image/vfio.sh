# What the jobs share that drive viommu-testdev through VFIO. Their programs are in the archive with our module.

# vfio_device: address of the test device, with vfio-pci as its driver. Without interrupt remapping VFIO wants to be told
# that it may.
vfio_device() {
  echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts
  for candidate in /sys/bus/pci/devices/*; do
    if [ "$(cat "$candidate/vendor"):$(cat "$candidate/device")" = 0x1234:0x10d0 ]; then
      echo vfio-pci >"$candidate/driver_override"
      echo "${candidate##*/}" >/sys/bus/pci/drivers_probe
      echo "${candidate##*/}"
      return
    fi
  done
}
