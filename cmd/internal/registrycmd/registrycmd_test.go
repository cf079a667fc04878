package registrycmd

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/spf13/pflag"

	"deploytools/layers"
	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/enginetest"
	"deploytools/registry/sshd"
	"deploytools/registry/wire"
)

// defaults are the settings without flags.
func defaults() *settings {
	s := &settings{}
	s.flags(pflag.NewFlagSet("", pflag.ContinueOnError))
	return s
}

// What can never be listened on is a wrong command line, and no other registry
// that runs.
func TestAddressesAreCheckedBeforeAnythingIsOpened(t *testing.T) {
	for addr, want := range map[string]bool{
		"localhost:2022": true, "[::1]:0": true, ":2022": true, "host:ssh": true,
		"": false, "nope": false, "127.0.0.1": false, "::1": false, "host:": false,
		"127.0.0.1:99999": false, "127.0.0.1:-1": false, "127.0.0.1:1,[::1]:1": false, "127.0.0.1:1 127.0.0.1:2": false,
	} {
		s := defaults()
		s.addrs = append(s.addrs, addr)
		if err := s.check(); (err == nil) != want {
			t.Errorf("check with -addr %q = %v", addr, err)
		}
	}
}

func TestLimitsAreChecked(t *testing.T) {
	for _, test := range []struct {
		args string
		ok   bool
	}{
		{"", true}, {"-max-startups=10:30:100 -max-startups-source=5 -max-connections=100 -max-sessions=1 -handshake=1m", true},
		{"-trusted=192.0.2.0/24 -trusted=2001:db8::1", true}, {"-trusted=", false}, {"-trusted=host", false}, {"-trusted=192.0.2.0/33", false},
		{"-max-startups=10", true}, {"-max-startups=100:30:10", false}, {"-max-startups=0", false},
		{"-max-startups-source=0", false}, {"-max-sessions=0", false}, {"-max-connections=1", false}, {"-max-connections=-1", false},
		{"-handshake=0", false}, {"-http=localhost:0", true}, {"-http=/run/http", true}, {"-http=0.0.0.0:80", false}, {"-http=http", false},
	} {
		s := &settings{}
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		s.flags(fs)
		err := fs.Parse(strings.Fields(strings.ReplaceAll(" "+test.args, " -", " --")))
		if err == nil {
			err = s.check()
		}
		if (err == nil) != test.ok {
			t.Errorf("%s: %v, want it taken: %t", test.args, err, test.ok)
		}
		if strings.Contains(test.args, "0.0.0.0") && !strings.HasSuffix(err.Error(), "http API has no authorization and should only be exposed on localhost") {
			t.Errorf("%s: %v, want upstream's text", test.args, err)
		}
	}
}

func TestLimitsReachTheServer(t *testing.T) {
	l := limits{startups: sshd.Startups{Start: 1, Rate: 2, Full: 3}, source: 4, connections: 5, sessions: 6, trusted: []string{"192.0.2.1", "2001:db8::1/32"}}
	got := l.of()
	want := []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32")}
	if got.Startups != l.startups || got.Source != 4 || got.Connections != 5 || got.Sessions != 6 || !slices.Equal(got.Trusted, want) {
		t.Errorf("of() = %+v", got)
	}
	if none := (&limits{}).of().Trusted; none == nil {
		t.Error("without -trusted the loopback networks are trusted, whatever was said")
	}
}

// fullStats has something to count everywhere.
type fullStats struct{}

func (fullStats) Stats() console.Stats {
	return console.Stats{
		Agents: 2, Operators: 1, Waiting: 1, Sessions: 1, Files: 1, Penalised: 1, Accepted: 9, Polls: 8, Received: 7, Sent: 6, Errors: 5,
		Refused:  map[string]int64{"timeout": 4, "crowded": 3},
		Commands: []console.CommandStats{{Name: "sftp", Status: wire.OK, Calls: 2, Took: 1500 * time.Millisecond}, {Name: "components", Status: wire.NotFound, Calls: 1}},
	}
}

func newMetrics(t *testing.T) metrics {
	blobs, spool := enginetest.NewBlobs()
	reg := registry.New(registry.Options{Meta: enginetest.NewMeta(enginetest.MetaOptions{}), Blobs: blobs, Spool: spool})
	t.Cleanup(reg.Close)
	return metrics{daemon: fullStats{}, reg: reg, dir: t.TempDir(), build: wire.Build{Version: "v1", Commit: "abc", Go: "go1"}, storing: reg.Storing}
}

// page returns what Prometheus reads.
func (m metrics) page(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("/metrics = %d, %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetricsShowWhatIsCounted(t *testing.T) {
	m := newMetrics(t)
	page := m.page(t)
	for _, want := range []string{
		`deploy_registry_build_info{commit="abc",go="go1",version="v1"} 1`,
		`deploy_registry_connections{role="agent"} 2`,
		`deploy_registry_connections_refused_total{reason="timeout"} 4`,
		`deploy_registry_commands_total{command="sftp",status="0"} 2`,
		`deploy_registry_command_seconds_total{command="sftp",status="0"} 1.5`,
		`deploy_registry_storage_writable 1`,
		`deploy_registry_checks{state="running"} 0`, `deploy_registry_checks{state="waiting"} 0`,
		`deploy_registry_disk_free_bytes `,
		`deploy_registry_internal_errors_total 5`,
		`process_open_fds `, `go_goroutines `,
	} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("the page has no %s", want)
		}
	}
	m.storing = func(context.Context) error { return errors.New("read-only") }
	m.dir = "/nowhere"
	if page = m.page(t); !strings.Contains(page, "deploy_registry_storage_writable 0\n") || strings.Contains(page, "\ndeploy_registry_disk") {
		t.Error("what cannot be written or read shows as if it could")
	}
}

// By the program that Prometheus has for it, and by its library.
func TestNamesOfMetrics(t *testing.T) {
	m := newMetrics(t)
	problems, err := testutil.CollectAndLint(m)
	if err != nil || len(problems) != 0 {
		t.Errorf("the library says %v, %v", problems, err)
	}
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(m.page(t))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

func TestRecentAnswersAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		ask := recent(func(context.Context) error { asked++; return errors.New("no") }, time.Second)
		for range 3 {
			if ask(t.Context()) == nil {
				t.Error("another answer")
			}
		}
		time.Sleep(time.Second)
		ask(t.Context())
		if asked != 2 {
			t.Errorf("asked %d times, want 2", asked)
		}
	})
}

func TestChecksAskForMemory(t *testing.T) {
	errFull := errors.New("full")
	_, err := checkFunc(layers.Options{})(t.Context(), strings.NewReader("no archive"), func(int64) error { return errFull })
	if !errors.Is(err, errFull) || errors.Is(err, registry.ErrRefused) {
		t.Errorf("without memory: %v", err)
	}
}
