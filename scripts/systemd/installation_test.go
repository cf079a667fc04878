//go:build !systemd

package systemd

import (
	"strings"
	"testing"
)

// What the tests in the container do is what the documents say. This one runs
// outside, so that it is noticed where a document changes.
func TestInstallationIsAsTheContainerDoesIt(t *testing.T) {
	all, err := installation("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct{ text, in string }{
		{"systemd-sysusers", all[0][0]}, {"service.keys", all[0][1]}, {"DEPLOY_REGISTRY_ADDR=", all[0][2]}, {"grep fingerprint", all[0][3]},
		{"ssh-keygen", all[1][0]}, {"DEPLOY_AGENT_FP=", all[1][1]}, {"enable --now deploy-agent@", all[1][2]},
	} {
		if !strings.Contains(want.in, want.text) {
			t.Errorf("%q is not in the block\n%s", want.text, want.in)
		}
	}
}
