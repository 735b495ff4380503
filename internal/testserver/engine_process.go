package testserver

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// privateFolders are those in which dockerd and containerd make folders at
// places that cannot be chosen. An engine has its own: what the machine has in
// them, and privateMade made anew. So it neither sees the machine's own Docker
// folders nor makes any, and no mount of it stands on a folder that somebody
// else may remove: that would take the mount away (mount_namespaces(7)).
var (
	privateFolders = []string{"/run", "/etc", "/opt"}
	privateMade    = []string{"/run/docker", "/run/containerd", "/etc/docker", "/opt/containerd"}
)

// inner is what runs as process 1 of the engine's namespaces. It replaces the
// folders of $2, mounts control groups where the machine has none, and collects
// the shims that dockerd leaves to process 1. The machine's own folders stay open
// in this shell, and links lead to what is in them: nothing of the machine is
// mounted where a clean-up could reach it.
const inner = `
set -e
dir=$1 folders=$2 made=$3; shift 3
number=3
for folder in $folders; do
	mkdir -p "$dir/private$folder"
	mount -t tmpfs -o mode=755 tmpfs "$dir/private$folder"
	eval "exec $number<$folder"
	for entry in "$folder"/* "$folder"/.[!.]*; do
		case " $made " in *" $entry "*) continue ;; esac
		if [ -e "$entry" ] || [ -L "$entry" ]; then printf '/proc/1/fd/%s/%s\0' "$number" "${entry##*/}"; fi
	done | xargs -0 -r ln -s -t "$dir/private$folder"
	number=$((number+1))
done
for folder in $folders; do mount --move "$dir/private$folder" "$folder"; done
mkdir $made
if [ -z "$(ls -A /sys/fs/cgroup)" ]; then mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi
set +e
"$@" 3<&- 4<&- 5<&- &
wait $!
`

// cleanEngine ends everything in the namespaces with their first process and
// removes what outlives them: also the devices that it was about to move into a network when
// it was killed. Its arguments: folder, bridge, control group, port of the VXLAN, and what
// the hardware addresses in its networks begin with.
const cleanEngine = `
dir=$1 bridge=$2 cgroup=$3 port=$4 macs=$5
pid=$(cat "$dir/pid" 2>/dev/null)
if [ -n "$pid" ] && tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$dir"; then kill -KILL "$pid"; fi
n=0
while [ $n -lt 200 ]; do
	left=
	if [ -e "/sys/class/net/$bridge" ]; then ip link delete "$bridge" 2>/dev/null || left="$left $bridge"; fi
	for d in $(ip -d -o link show type vxlan 2>/dev/null | grep -F " dstport $port " | awk -F'[: @]+' '{print $2}') \
		$(ip -o link show type veth 2>/dev/null | grep -E "link/ether ($macs)" | awk -F'[: @]+' '{print $2}'); do
		ip link delete "$d" 2>/dev/null
	done
	for c in $(find /sys/fs/cgroup -maxdepth 2 -type d -name "$cgroup" 2>/dev/null); do
		find "$c" -depth -type d -exec rmdir {} \; 2>/dev/null
		[ ! -d "$c" ] || left="$left $c"
	done
	rm -rf "$dir" 2>/dev/null
	[ ! -e "$dir" ] || left="$left $dir"
	[ -n "$left" ] || break
	n=$((n+1)); sleep 0.1
done
if [ -n "$left" ]; then echo "left behind:$left" >&2; exit 1; fi
`

// startDaemon starts dockerd in its namespaces.
func (e *Engine) startDaemon() error {
	dockerd, err := lookPath("dockerd")
	if err != nil {
		return err
	}
	if err := os.WriteFile(e.path("daemon.json"), []byte("{}\n"), 0o600); err != nil {
		return err
	}
	args := slices.Concat([]string{
		"--mount", "--pid", "--fork", "--kill-child=SIGKILL", "--mount-proc", "--propagation", "private",
		"/bin/sh", "-c", inner, "keyturn-engine", e.dir, strings.Join(privateFolders, " "), strings.Join(privateMade, " "), dockerd,
		"--config-file", e.path("daemon.json"),
		"--data-root", e.path("data"), "--exec-root", e.path("exec"),
		"--pidfile", e.path("dockerd.pid"), "--host", e.Host(),
		"--bridge", "none", "--iptables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=false",
		"--cgroup-parent", "/" + e.cgroup(), "--exec-opt", "native.cgroupdriver=cgroupfs",
		"--shutdown-timeout", "5",
	}, e.tlsArgs(), e.opts.Args)
	cmd := exec.Command("unshare", args...)
	// An engine that many tests share has a lot to remember, and memory is cheaper than time.
	cmd.Env = append(os.Environ(), "GOGC=400", "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin:/usr/bin:/bin")
	cmd.Dir = "/"
	if e.process, err = startProcess(cmd, e.path("dockerd.log")); err != nil {
		return err
	}
	return os.WriteFile(e.path("pid"), []byte(strconv.Itoa(e.process.pid())), 0o600)
}
