package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ipfw/ipfw/e2e/lab"
)

// Kernel is the stock kernel of a release of Debian, the newest when it was
// unpacked.
type Kernel struct {
	Name  string // "debian-12"
	Suite string // "bookworm"; e2e/install.sh knows it by this name
	Major string // the first two numbers of its version
	Has   []Feature
}

// Feature is something that not every kernel has: in words, as the option of its
// configuration, and by what one sees that it is there: a module, or a symbol of
// the kernel or of that module.
type Feature struct{ Name, Option, Module, Symbol string }

// Features, of which Kernels says who has them. TestKernels holds that to the
// kernels themselves.
var (
	QueueExpression = Feature{"the nftables queue expression", "CONFIG_NFT_QUEUE", "nft_queue", ""}
	QueueTarget     = Feature{"the xtables NFQUEUE target", "CONFIG_NETFILTER_XT_TARGET_NFQUEUE", "xt_NFQUEUE", ""}
	BPFMatch        = Feature{"the xtables match bpf", "CONFIG_NETFILTER_XT_MATCH_BPF", "xt_bpf", ""}
	BPFHook         = Feature{"BPF programs on netfilter hooks", "CONFIG_NETFILTER_BPF_LINK", "", "bpf_nf_link_attach"}
	ConntrackGlue   = Feature{"connections told of queued packets", "CONFIG_NETFILTER_NETLINK_GLUE_CT", "nf_conntrack_netlink", "ctnetlink_glue_parse"}
	ESP             = Feature{"ESP of its own", "CONFIG_INET_ESP", "esp4", ""}
	AH              = Feature{"AH of its own", "CONFIG_INET_AH", "ah4", ""}
	IPTFS           = Feature{"IP-TFS", "CONFIG_XFRM_IPTFS", "xfrm_iptfs", ""}
	WireGuard       = Feature{"WireGuard", "CONFIG_WIREGUARD", "wireguard", ""}
)

// features are all of them.
func features() []Feature {
	return []Feature{QueueExpression, QueueTarget, BPFMatch, BPFHook, ConntrackGlue, ESP, AH, IPTFS, WireGuard}
}

// Kernels are those that make kernels boots, oldest first.
func Kernels() []Kernel {
	old := []Feature{QueueExpression, QueueTarget, BPFMatch, ConntrackGlue, ESP, AH, WireGuard}
	return []Kernel{
		{"debian-12", "bookworm", "6.1", old},
		{"debian-13", "trixie", "6.12", append(slices.Clone(old), BPFHook)},
		{"debian-14", "forky", "7.2", append(slices.Clone(old), BPFHook)},
	}
}

// unpacked is where e2e/install.sh puts them.
const unpacked = "/var/cache/ipfw-e2e"

func (k Kernel) folder() string { return filepath.Join(unpacked, k.Suite+"-kernel") }

// lacksPrefix begins the sentence by which a test in a guest says that it cannot
// be on this kernel; the table of results shows it. Other tests go on with "no".
const lacksPrefix = "this kernel has no"

// Here is the kernel of the guest that this process is in.
func Here() (Kernel, error) {
	name := os.Getenv(lab.KernelVariable)
	for _, k := range Kernels() {
		if k.Name == name {
			return k, nil
		}
	}
	return Kernel{}, errors.New("not in a guest of e2e/vm: " + lab.KernelVariable + " names no kernel; `make kernels` runs this test")
}

// Need leaves a test of a guest out where the kernel has not what it needs.
func Need(t testing.TB, features ...Feature) {
	t.Helper()
	k, err := Here()
	if err != nil {
		lab.Skip(t, err.Error())
	}
	for _, f := range features {
		if !slices.Contains(k.Has, f) {
			t.Skip(lacksPrefix + "t " + f.String())
		}
	}
}

// String names it for people.
func (f Feature) String() string { return fmt.Sprintf("%s (%s)", f.Name, f.Option) }
