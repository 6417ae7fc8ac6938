# What the jobs that use our kernel module share. The module and its programs are in an archive of their own.

# load_testdev JOB: the driver of viommu-testdev, once.
load_testdev() {
  [ -d /sys/module/viommu_testdev ] || insmod /lib/extra/viommu-testdev.ko ||
    { say "$1" 'reason="no module"'; return 1; }
  [ -c /dev/viommu-testdev ] || { say "$1" 'reason="no device"'; return 1; }
}
