#!/bin/sh
# In level 1: starts guests under its KVM, one with QEMU's own IOMMU and one behind ours in turns, on the same disks.
# viommu.settings= names a file of settings.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/run TMPDIR=/run XDG_RUNTIME_DIR=/run
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
[ -c /dev/kvm ] || { say fail 'reason="no /dev/kvm"'; exit 1; }
for disk in nvme virtio; do
  dd if=/dev/urandom "of=/run/$disk.raw" bs=1M count=32 2>/dev/null
done
disks="-drive if=none,id=d0,file=/run/nvme.raw,format=raw -device nvme,drive=d0,serial=viommu
  -drive if=none,id=d1,file=/run/virtio.raw,format=raw
  -device virtio-blk-pci,drive=d1,iommu_platform=on,disable-legacy=on"

# guest SIDE RUN COMMAND…: a guest that has to end in time; where it hangs, what its threads wait for.
guest() {
  side=$1 run=$2
  shift 2
  say begin "side=$side" "run=$run" "seconds=$(up)"
  # shellcheck disable=SC2086 # words of arguments
  "$@" $MACHINE -nodefaults -display none -serial stdio -no-reboot -smp "$CPUS" $disks \
    -kernel "$KERNEL" -initrd "$INITRAMFS" -append "$APPEND viommu.run=strict-reads viommu.rounds=$ROUNDS" &
  process=$!
  left=$LIMIT
  while [ "$left" -gt 0 ] && kill -0 "$process" 2>/dev/null; do
    sleep 1
    left=$((left - 1))
  done
  if [ "$left" = 0 ]; then
    say hung "side=$side" "run=$run"
    for task in /proc/[0-9]*/task/*; do
      case "$(cat "$task/comm")" in
        qemu-* | CPU* | node | viommu* | worker*)
          echo "$task $(cat "$task/comm") $(cat "$task/wchan") $(cut -d ' ' -f 3,14,15 "$task/stat")"
          ;;
      esac
    done
    kill -TERM "$process"
  fi
  wait "$process"
  say qemu "side=$side" "run=$run" "status=$?" "seconds=$(up)"
}

run=1
while [ "$run" -le "$RUNS" ]; do
  # shellcheck disable=SC2086 # words of arguments
  guest stock "$run" "$QEMU" $STOCK -m 256M
  # shellcheck disable=SC2086 # words of arguments
  guest ours "$run" "$NODE" "$PROJECT/dist/main.js" qemu --bridge "$BRIDGE" --qemu "$QEMU" --memory 256M $OPTIONS \
    --report "/run/report-$run.json" -- -device "$DEVICE"
  say report "$(tr -d '\n' <"/run/report-$run.json")"
  run=$((run + 1))
done
