package ike

import (
	"os"
	"strconv"
	"testing"
)

// TestModelTrace plays one schedule of the model test, and shows its datagrams
// when it is named: IPFW_IKE_SEED=18 go test -run ModelTrace -v.
func TestModelTrace(t *testing.T) {
	seed, err := strconv.ParseUint(os.Getenv("IPFW_IKE_SEED"), 10, 64)
	if err != nil {
		seed = 1
	}
	if _, err := playModel(t, seed); err != nil {
		t.Error(err)
	}
}
