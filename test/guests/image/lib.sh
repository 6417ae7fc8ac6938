# What the jobs share. busybox sh.

# say JOB key=value…: one machine-readable line.
say() {
  echo "VIOMMU-GUEST: $*"
}

# param NAME DEFAULT: value of viommu.NAME= on the kernel command line.
param() {
  for word in $(cat /proc/cmdline); do
    case "$word" in
      "viommu.$1="*) echo "${word#*=}"; return ;;
    esac
  done
  echo "$2"
}

# Seconds since the kernel started, in hundredths.
now() {
  cut -d ' ' -f 1 /proc/uptime
}

# since START: seconds passed since a value of now().
since() {
  echo "$1 $(now)" | awk '{ printf "%.2f", $2 - $1 }'
}

# kernel_lines JOB: passes kernel messages on, marked.
kernel_lines() {
  while IFS= read -r line; do
    echo "VIOMMU-GUEST: $1 | $line"
  done
}

# Kernel messages that report a fault, or an error of the invalidation queue or the command queue. An SMMUv3
# driver prints an event record in four lines after the one that announces it.
DMAR_FAULT='DMAR:.*(fault reason|detected Invalidation)'
SMMU_FAULT='arm-smmu-v3.*(event|global error|CMDQ error|overflow|aborted|CMD_SYNC timeout)'
faults() {
  dmesg | grep -E "$DMAR_FAULT|DMAR:.*(handling fault|QI (HEAD|PRIOR))|$SMMU_FAULT|arm-smmu-v3.*[[:space:]]0x[0-9a-f]{16}\$"
}

# Faults among these messages: the other lines belong to one of them.
count_faults() {
  faults | grep -c -E "$DMAR_FAULT|$SMMU_FAULT"
}

# Kernel messages that report that something did not come, or took too long. The second line that some make of it is left out.
IOMMU_STALL='CMD_SYNC timeout|QI (wait|invalidation).*too long|detected Invalidation Time-out'
TASK_STALL='blocked for more than|(soft|hard) lockup|detected (expedited )?stalls?|self-detected stall'
stalls() {
  dmesg | grep -i -E "$IOMMU_STALL|$TASK_STALL|nvme.* timeout, |transmit queue .*timed out"
}

# wait_for SECONDS COMMAND…: until the command succeeds.
wait_for() {
  tries=$(($1 * 20))
  shift
  while ! "$@"; do
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || return 1
    usleep 50000
  done
}

# disk_of PREFIX: name of the first disk of that kind (nvme, vd) that can be opened. The NVMe driver also
# lists hidden ones, which have no device node.
disk_of() {
  for disk in /sys/block/"$1"*; do
    if [ -b "/dev/${disk##*/}" ]; then
      echo "${disk##*/}"
      return 0
    fi
  done
  return 1
}

# random_data MIB: that much random data in /tmp/data; data of the same size is used again.
random_data() {
  if [ "$(stat -c %s /tmp/data 2>/dev/null)" != $(($1 * 1048576)) ]; then
    dd if=/dev/urandom of=/tmp/data bs=1M "count=$1" 2>/dev/null
  fi
}

# sum_of FILE: its MD5.
sum_of() {
  md5sum <"$1" | cut -d ' ' -f 1
}

# disk_job JOB PREFIX: writes random data to the start of a disk, reads it back, compares sums.
# O_DIRECT both ways, so that every byte is a DMA of the device and none comes from the page cache.
disk_job() {
  job=$1
  mib=$(param mib 64)
  wait_for 10 disk_of "$2" >/dev/null || { say "$job" 'reason="no disk"'; return 1; }
  disk=$(disk_of "$2")
  random_data "$mib"
  written=$(sum_of /tmp/data)
  start=$(now)
  dd if=/tmp/data "of=/dev/$disk" bs=1M oflag=direct conv=fsync,notrunc 2>/tmp/log ||
    { kernel_lines "$job" </tmp/log; return 1; }
  write=$(since "$start")
  rm /tmp/data
  start=$(now)
  dd "if=/dev/$disk" of=/tmp/data bs=1M "count=$mib" iflag=direct 2>/tmp/log ||
    { kernel_lines "$job" </tmp/log; return 1; }
  read=$(since "$start")
  found=$(sum_of /tmp/data)
  same=0
  [ "$written" = "$found" ] && same=1
  say "$job" "disk=$disk" "bytes=$(stat -c %s /tmp/data)" "written=$written" "read=$found" "same=$same" \
    "write_seconds=$write" "read_seconds=$read"
  [ "$same" = 1 ]
}

# interface_of DRIVER: name of the first network interface that a PCI driver serves.
interface_of() {
  for interface in /sys/class/net/*; do
    case "$(readlink "$interface/device/driver")" in
      */"$1") echo "${interface##*/}"; return 0 ;;
    esac
  done
  return 1
}

# carrier INTERFACE: whether its link is up.
carrier() {
  [ "$(cat "/sys/class/net/$1/carrier" 2>/dev/null)" = 1 ]
}
