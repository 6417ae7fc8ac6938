# In level 1: makes a virtual function of the igb card and gives it to vfio-pci. Sets interface (of the card), function, group and
# attach: QEMU's arguments for it. Needs say and up.
card=$(dirname "$(grep -l 0x10c9 /sys/bus/pci/devices/*/device | head -n 1)")
[ -f "$card/sriov_numvfs" ] || { say fail 'reason="no igb card"'; exit 1; }
interface=$(ls "$card/net")
ip link set "$interface" up
ip addr add 192.168.7.1/24 dev "$interface"
# No driver of level 1 takes it before VFIO does.
echo 0 >"$card/sriov_drivers_autoprobe"
echo 1 >"$card/sriov_numvfs"
ip link set "$interface" vf 0 mac 02:00:00:00:07:02
function=$(basename "$(readlink "$card/virtfn0")")
echo vfio-pci >"/sys/bus/pci/devices/$function/driver_override"
echo "$function" >/sys/bus/pci/drivers_probe
group=$(basename "$(readlink "/sys/bus/pci/devices/$function/iommu_group")")
attach="-device vfio-pci,host=$function"
[ -z "$IOMMUFD" ] || attach="-object iommufd,id=iommufd $attach,iommufd=iommufd"
[ -c "/dev/vfio/$group" ] || { say fail "reason=\"$function has no /dev/vfio/$group\""; exit 1; }
say function "address=$function" "group=$group" "seconds=$(up)"
