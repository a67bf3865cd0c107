// Package layout is every name, path and address of a local cluster, derived from its name and two folders alone,
// so that any later run finds what an earlier one made.
package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"tanka.dev/e2e/cluster/internal/refusal"
)

// MaxNodes is how many nodes a cluster may have; more were never tried.
const MaxNodes = 3

// Cluster is one local cluster: its name, where its state lives and where shared downloads and builds live.
type Cluster struct {
	Name       string
	State      string // everything that this checkout's clusters keep
	Cache      string // binaries and images, shared by all clusters
	Components string // folder of the built components inside the cache
}

var validName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// New checks its arguments and resolves the folders to absolute paths without symbolic links, since a path's
// hash names the cluster's cgroup and must not depend on how the folder was reached.
func New(name, state, cache, componentsKey string) (Cluster, error) {
	if !validName.MatchString(name) {
		return Cluster{}, refusal.New("CLUSTER_NAME=%q is not usable; choose up to 32 lower-case letters, digits and dashes", name)
	}
	resolved := make([]string, 2)
	for i, folder := range []string{state, cache} {
		path, err := resolve(folder)
		if err != nil {
			return Cluster{}, err
		}
		for _, hidden := range []string{"/run", "/var/run", "/var/log", "/proc", "/sys"} {
			if path == hidden || strings.HasPrefix(path, hidden+"/") {
				return Cluster{}, refusal.New("%s lies below %s, which a node replaces by its own; set TANKA_STATE and TANKA_CACHE to other folders", path, hidden)
			}
		}
		resolved[i] = path
	}
	return Cluster{
		Name: name, State: resolved[0], Cache: resolved[1],
		Components: filepath.Join(resolved[1], "bin", "components", componentsKey),
	}, nil
}

// resolve follows symbolic links in the part of the path that exists.
func resolve(folder string) (string, error) {
	absolute, err := filepath.Abs(folder)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w", folder, err)
	}
	rest := ""
	for existing := absolute; ; existing = filepath.Dir(existing) {
		if real, err := filepath.EvalSymlinks(existing); err == nil {
			return filepath.Join(real, rest), nil
		} else if !os.IsNotExist(err) {
			return "", refusal.New("%s cannot be reached (%v); choose another folder", absolute, err)
		}
		rest = filepath.Join(filepath.Base(existing), rest)
	}
}

// Dir holds everything of this cluster; removing it forgets the cluster.
func (c Cluster) Dir() string { return filepath.Join(c.State, "clusters", c.Name) }

// Path is a path inside the cluster's folder.
func (c Cluster) Path(parts ...string) string {
	return filepath.Join(append([]string{c.Dir()}, parts...)...)
}

// LockFile outlives the cluster's folder, so that "up" and "down" exclude each other.
func (c Cluster) LockFile() string { return filepath.Join(c.State, "clusters", "."+c.Name+".lock") }

// Kubeconfig is the administrator's, for use from the host.
func (c Cluster) Kubeconfig() string { return c.Path("kubeconfig") }

// Kubectl is the link that a person puts in their PATH.
func (c Cluster) Kubectl() string { return filepath.Join(c.State, "bin", "kubectl") }

// Component is the path of a built program.
func (c Cluster) Component(name string) string { return filepath.Join(c.Components, name) }

// Log is where a daemon writes, for example Log("node-1", "kubelet").
func (c Cluster) Log(group, daemon string) string { return c.Path("logs", group+"."+daemon+".log") }

// Cgroup is the group that holds every process of the cluster. It carries a hash of the state folder, so that two
// checkouts may each have a cluster of the same name.
func (c Cluster) Cgroup() string { return "/tanka-" + c.Name + "-" + c.checkout() }

func (c Cluster) checkout() string {
	sum := sha256.Sum256([]byte(c.State))
	return hex.EncodeToString(sum[:4])
}

var clusterGroup = regexp.MustCompile(`^/?tanka-[-a-z0-9]+-([0-9a-f]{8})(/|$)`)

// Foreign reports a cgroup that belongs to a cluster of another checkout.
func (c Cluster) Foreign(group string) bool {
	match := clusterGroup.FindStringSubmatch(group)
	return match != nil && match[1] != c.checkout()
}

// DaemonCgroup is where one daemon lives; the path is its identity, so no pid file can go stale.
func (c Cluster) DaemonCgroup(group, daemon string) string {
	return c.Cgroup() + "/" + group + "/" + daemon
}

// PodsCgroup is the kubelet's root for one node.
func (c Cluster) PodsCgroup(n Node) string { return c.DaemonCgroup(n.Name(), "pods") }

// NodeDir is the "disk" of a node: it survives kill-node.
func (c Cluster) NodeDir(n Node) string { return c.Path("nodes", n.Name()) }

// SeedDir is a containerd root that already holds the system images.
func (c Cluster) SeedDir() string {
	return filepath.Join(c.Cache, "seed", filepath.Base(c.Components)+"-"+seedVersion)
}

// seedVersion changes when the way the system images are made changes.
const seedVersion = "1"
