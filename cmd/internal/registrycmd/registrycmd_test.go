package registrycmd

import (
	"testing"

	"deploytools/registry"
)

// What can never be listened on is a wrong command line, and no other registry
// that runs.
func TestAddressesAreCheckedBeforeAnythingIsOpened(t *testing.T) {
	for addr, want := range map[string]bool{
		"localhost:2022": true, "[::1]:0": true, ":2022": true, "host:ssh": true,
		"": false, "nope": false, "127.0.0.1": false, "::1": false, "host:": false,
		"127.0.0.1:99999": false, "127.0.0.1:-1": false, "127.0.0.1:1,[::1]:1": false, "127.0.0.1:1 127.0.0.1:2": false,
	} {
		s := settings{addrs: []string{"localhost:2022", addr}, maxUpload: 1, minFree: 1, quota: registry.Quota{Operator: 1, Total: 1, Entries: 1}}
		if err := s.check(); (err == nil) != want {
			t.Errorf("check with -addr %q = %v", addr, err)
		}
	}
}
