package lab

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// OffloadEnv is an environment variable that makes every lab use one way of
// the policy block's `offload`: "flow" or "none".
const OffloadEnv = "IPFW_E2E_OFFLOAD"

// EachOffload runs a test in both ways of the policy block's `offload`: the
// policies of its labs get the line. With OffloadEnv set it runs once.
func EachOffload(t *testing.T, f func(t *testing.T, way string)) {
	ways := []string{"flow", "none"}
	if way := os.Getenv(OffloadEnv); way != "" {
		ways = []string{way}
	}
	for _, way := range ways {
		t.Run("offload="+way, func(t *testing.T) { f(t, way) })
	}
}

// offloadOf says which way the policies of a test's labs take, "" for the
// default.
func offloadOf(t testing.TB) string {
	if t, ok := t.(*testing.T); ok { // what uses a lab beside the tests has no name
		for part := range strings.SplitSeq(t.Name(), "/") {
			if way, ok := strings.CutPrefix(part, "offload="); ok {
				return way
			}
		}
	}
	return os.Getenv(OffloadEnv)
}

// withOffload puts the lab's way into the policy block of a file that has one
// and says nothing of its own.
func (l *Lab) withOffload(text string) string {
	if l.offload == "" || strings.Contains(text, "offload") {
		return text
	}
	return strings.Replace(text, "policy {\n", "policy {\n  offload = \""+l.offload+"\"\n", 1)
}

// profile gives the path of a profile of ipfw: its name, or a file with the
// lab's way in it.
func (l *Lab) profile(name string) string {
	l.Helper()
	if l.offload == "" {
		return "profile:" + name
	}
	out, err := exec.Command(Binary(l), "profile", "show", name).Output()
	if err != nil {
		l.Fatalf("profile %s: %v", name, err)
	}
	return l.File(name+".hcl", string(out))
}
