package vm

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// way is how packets get into the queue: what the guest cannot load leaves one.
type way struct {
	name    string
	without []string
	needs   Feature
}

// middle is the kernel, of Kernels, on which make test-kernels runs what it runs on
// one alone.
const middle = 1

func ways() []way {
	return []way{
		{"queue", []string{"xt_NFQUEUE"}, QueueExpression},
		{"xtables", []string{"nft_queue"}, QueueTarget},
	}
}

// suite is the tests of a package that are to run in guests. Files with the build
// tag "guest" are part of it.
type suite struct {
	pkg       string // below the module
	run, skip string // patterns of tests; "": all, none
	// onlyQueue is of those that no other way into the queue would change.
	onlyQueue string
	// short are those of them that make test-kernels runs.
	short string
}

func suites() []suite {
	return []suite{
		{pkg: "e2e", run: "^Test(" + wholeHosts + ")$", onlyQueue: "^Test(" + anyWay + ")$", short: "^TestDemo$"},
		{pkg: "nfq", skip: "^TestFigure", onlyQueue: "^TestNativeQueueExpression$", short: "^(TestQueueOverflow|TestSenderNoAllocs|TestWaiterTakesTurns)$"},
		{pkg: "host", skip: "^TestFigure", onlyQueue: ".", short: "^$"},
		{pkg: "e2e/peers", run: "^TestStrongSwanKernel$", onlyQueue: ".", short: "^$"},
		{pkg: "e2e/attack", run: "^Test(" + attacks + ")$", onlyQueue: ".", short: "^$"},
	}
}

// Tests of e2e and e2e/attack that fit a guest and may come out otherwise on another
// kernel: its IPsec, as the peer; connection tracking and marks; tables and queues
// that change hands; sockets; fragments and sizes.
const (
	wholeHosts = "Guest|Demo|DemoUnderLoad|KernelIsTheOracle|" + anyWay + "|" +
		"CountersTellTheTruth|CutFlowStaysInTheKernel|OffloadedFlowIsProtectedAtOnce|BanCutsLiveConnection|InterfaceChangesItsName|" +
		"TakeoverOpensNothing|KillAndTakeOver|ReloadUnderLoad|TableIsOwned|Shut|BigPing|TransferWithoutCorruption"
	anyWay = "Beside.*|XFRM|XFRMDaemon|GREAndIPIPOverTransport|VXLANOverTransport|ReadmeTwoHosts|IKEFirstPacket|IKERekeyUnderLoad|IKEThroughNAT|" +
		"ProtectManual|KillDuringProtectedTransfer|ReloadDuringProtectedTransfer|TwoOfficesScenario|LongDatagramsThroughATunnel|" +
		"PathMTU|ErrorsAboutProtectedTraffic|SuperPacketOpensAFlow|OwnMulticastIsHeard"
	attacks = "ReplayAndTampering|ClearTextInEveryDress|ProtectedWhileTheDaemonIsGone|OpenedPacketsStayIn|ForwardRuleWithInterface|" +
		"RulesetFlushed|TinyAndOverlappingFragments|MarksOfOthers|ClearFragmentsDoNotJoin|FragmentsOfTwoPeersDoNotJoin|ForgedPathMTU|" +
		"JunkAtTheTunnelsPort|PeerKeepsToItsRules|PortsWhileNobodyJudges|OldDecisionsStayOld|ErrorsQuoteNothingProtected|FlowDoesNotChangeItsDevice"
)

// built is a suite whose tests are known, and once build has been called one that
// is ready to run.
type built struct {
	suite
	binary string // in the folder that guests see
	dir    string // of the package
	tests  []string
}

// listed gives the suites with their tests, as they are written down: to ask a test
// binary takes as long as to build it.
func listed(t *testing.T) (all []*built) {
	t.Helper()
	for _, s := range suites() {
		b := &built{suite: s, binary: strings.ReplaceAll(s.pkg, "/", "-") + ".test"}
		files := strings.Fields(command(t, "go", "list", "-tags", "guest", "-f", `{{.Dir}} {{join .TestGoFiles " "}} {{join .XTestGoFiles " "}}`, s.path()))
		b.dir = files[0]
		for _, f := range files[1:] {
			text, err := os.ReadFile(filepath.Join(b.dir, f))
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range testFunction.FindAllSubmatch(text, -1) {
				if test := string(m[1]); matches(t, s.run, test, true) && !matches(t, s.skip, test, false) {
					b.tests = append(b.tests, test)
				}
			}
		}
		if len(b.tests) == 0 {
			t.Fatalf("%s has no tests for guests", s.pkg)
		}
		all = append(all, b)
	}
	return all
}

var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(\w+ \*testing\.T\)`)

// build builds the suite once, for all guests, into a folder.
func (b *built) build(t *testing.T, share string) {
	t.Helper()
	to := filepath.Join(share, b.binary)
	if _, err := os.Stat(to); err != nil {
		command(t, "go", "test", "-c", "-tags", "guest", "-o", to, b.path())
	}
}

// parallel is how many tests run at a time. Those of whole hosts wait for most of
// their time; the others keep the guest's two processors busy.
func (s suite) parallel() int {
	if s.pkg == "e2e" {
		return 4
	}
	return 2
}

func (s suite) path() string { return "github.com/ipfw/ipfw/" + s.pkg }

// command runs a command, which must succeed, and gives what it prints.
func command(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// matches says whether a text fits a pattern, and otherwise of an empty one.
func matches(t testing.TB, pattern, text string, otherwise bool) bool {
	t.Helper()
	if pattern == "" {
		return otherwise
	}
	ok, err := regexp.MatchString(pattern, text)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

// What is run of all: IPFW_KERNELS=all, or a pattern for the rows, as the table
// prints them; without it the short ones. IPFW_KERNELS_PART=2/5 runs the second
// fifth of those, IPFW_KERNEL=pattern those of some kernels.
type choice struct {
	rows, kernel string
	part, of     int
}

func chosen(t *testing.T) choice {
	c := choice{rows: os.Getenv("IPFW_KERNELS"), kernel: os.Getenv("IPFW_KERNEL"), part: 1, of: 1}
	if part := os.Getenv("IPFW_KERNELS_PART"); part != "" {
		if _, err := fmt.Sscanf(part, "%d/%d", &c.part, &c.of); err != nil || c.part < 1 || c.part > c.of {
			t.Fatalf("IPFW_KERNELS_PART=%s: want 1/5 to 5/5, for example", part)
		}
	}
	return c
}

// tests are those of a suite that are chosen for one way; n counts the rows of a
// kernel.
func (c choice) tests(t *testing.T, b *built, w way, first bool, n *int) (tests []string) {
	for _, test := range b.tests {
		switch row := line(w.name, b.pkg, test); {
		case !first && matches(t, b.onlyQueue, test, false):
		case c.rows == "" && !matches(t, b.short, test, false):
		case c.rows != "" && c.rows != "all" && !matches(t, c.rows, row, true):
		default:
			if *n++; (*n-1)%c.of == c.part-1 {
				tests = append(tests, test)
			}
		}
	}
	return tests
}

// line is the table's name for a row.
func line(way, pkg, test string) string { return fmt.Sprintf("%-8s %-10s %s", way, pkg, test) }
