package agentcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"deploytools/agent"
	"deploytools/cmd/internal/ops"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// watched returns the metrics of two members: one that has a record, and one
// that was never made.
func watched(t *testing.T) metrics {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	told := newTold([]string{"web", "api"})
	m := metrics{build: wire.Build{Version: "v1", Commit: "abc", Go: "go1"}}
	for _, name := range told.names {
		one := &member{o: agent.Options{Name: name, Dir: t.TempDir(), Source: empty{}, Mode: agent.Mode{Once: true}},
			told: told, tally: newTally(), shown: func() {}, log: log}
		one.o.Observe = one.observe(one.o.Dir)
		m.members = append(m.members, one)
	}
	web := m.members[0]
	if err := web.once(t.Context()); err != nil {
		t.Fatal(err)
	}
	web.heard(wire.PollState{Name: "web", Revision: 7, Digest: digest.Of(nil), Hold: &wire.Hold{Reason: "sale"}}, nil)
	web.heard(wire.PollState{}, wire.ErrUnreachable)
	web.tally.ended(&agent.Deployment{})
	began := time.Now().Add(-time.Minute)
	web.tally.ended(&agent.Deployment{Verdict: agent.Bad, Started: began, Ended: began.Add(90 * time.Second), Switched: true, Back: new(agent.Root),
		Events: []agent.Event{{State: agent.Switching}, {State: agent.Hooking}, {State: agent.Restoring}, {State: agent.Discarding}}})
	web.tally.ended(&agent.Deployment{Verdict: agent.Bad, Broken: "x", Switched: true, Back: new(agent.Root),
		Events: []agent.Event{{State: agent.Verifying}, {State: agent.Restoring}, {State: agent.Broken}}})
	web.tally.ended(&agent.Deployment{Verdict: agent.Bad, Events: []agent.Event{{State: agent.Checking}, {State: agent.Discarding}}})
	web.tally.unchanged()
	web.tally.restarted()
	return m
}

func (m metrics) page(t *testing.T) string {
	t.Helper()
	w := httptest.NewRecorder()
	ops.Metrics(m).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	b, err := io.ReadAll(w.Body)
	if err != nil || w.Code != 200 {
		t.Fatalf("/metrics = %d, %v\n%s", w.Code, err, b)
	}
	return string(b)
}

func TestMetrics(t *testing.T) {
	page := watched(t).page(t)
	for _, want := range []string{
		`deploy_agent_build_info{commit="abc",go="go1",version="v1"} 1`,
		`deploy_agent_running{configuration="web"} 0`,
		`deploy_agent_alive{configuration="web"} 1`,
		`deploy_agent_state{configuration="web",state="Idle"} 1`,
		`deploy_agent_state{configuration="web",state="Broken"} 0`,
		`deploy_agent_registry_revision{configuration="web"} 7`,
		`deploy_agent_held{configuration="web"} 1`,
		`deploy_agent_polls_total{configuration="web",result="error"} 1`,
		`deploy_agent_polls_total{configuration="web",result="ok"} 1`,
		`deploy_agent_deployments_total{configuration="web",outcome="bad"} 3`,
		`deploy_agent_failures_total{configuration="web",step="validate"} 1`,
		`deploy_agent_failures_total{configuration="web",step="reload"} 1`,
		`deploy_agent_failures_total{configuration="web",step="verify"} 1`,
		`deploy_agent_failures_total{configuration="web",step="unpack"} 0`,
		`deploy_agent_rollbacks_total{configuration="web",outcome="restored"} 1`,
		`deploy_agent_rollbacks_total{configuration="web",outcome="also_failed"} 1`,
		`deploy_agent_unchanged_total{configuration="web"} 1`,
		`deploy_agent_deployment_seconds_sum{configuration="web"} 90`,
		`deploy_agent_deployment_seconds_count{configuration="web"} 4`,
		`deploy_agent_deployments_total{configuration="web",outcome="committed"} 1`,
		`deploy_agent_deployments_total{configuration="api",outcome="committed"} 0`,
		`deploy_agent_restarts_total{configuration="web"} 1`,
		`deploy_agent_disk_free_bytes{configuration="api"} `,
	} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("the page has no %s\n%s", want, page)
		}
	}
	for _, unknown := range []string{`deploy_agent_live_revision{configuration="web"}`, `deploy_agent_state{configuration="api"`, `deploy_agent_last_poll_timestamp_seconds{configuration="api"}`} {
		if strings.Contains(page, unknown) {
			t.Errorf("the page has %s, which nobody knows", unknown)
		}
	}
}

// By the program that Prometheus has for it, and by its library.
func TestNamesOfMetrics(t *testing.T) {
	m := watched(t)
	if problems, err := testutil.CollectAndLint(m); err != nil || len(problems) != 0 {
		t.Errorf("the library says %v, %v", problems, err)
	}
	cmd := exec.CommandContext(t.Context(), "promtool", "check", "metrics")
	cmd.Stdin = strings.NewReader(m.page(t))
	if out, err := cmd.CombinedOutput(); err != nil || len(out) != 0 {
		t.Errorf("promtool: %v\n%s", err, out)
	}
}

// node_exporter has go_ and process_ metrics of its own: one name twice, and it
// shows nothing at all.
func TestTextfileHasOnlyWhatIsOurs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deploy-agent.prom")
	f := newTextfile(path, watched(t), slog.New(slog.DiscardHandler))
	f.write()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "deploy_agent_") {
			t.Errorf("not ours: %s", line)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

func TestReadyIsWhatCanWork(t *testing.T) {
	m := watched(t)
	if err := ready(t.Context(), m.members); err == nil || !strings.Contains(err.Error(), "starting") {
		t.Errorf("before all is known: %v", err)
	}
	m.members[0].told.know("api")
	if err := ready(t.Context(), m.members); err == nil || !strings.Contains(err.Error(), "configuration web waits") {
		t.Errorf("where none is at work: %v", err)
	}
	for _, one := range m.members {
		a, err := agent.New(one.o)
		if err != nil {
			t.Fatal(err)
		}
		one.set(a)
	}
	if err := ready(t.Context(), m.members); err != nil {
		t.Errorf("where all are: %v", err)
	}
	ended, cancel := context.WithTimeoutCause(t.Context(), time.Nanosecond, errors.New("end"))
	defer cancel()
	<-ended.Done()
	if err := ready(ended, m.members); err == nil {
		t.Error("ready while it stops")
	}
}

func TestMetricsOfTheLiveRoot(t *testing.T) {
	at := time.Unix(1e9, 0)
	out := make(chan prometheus.Metric, 10)
	sender{out, "web"}.seen(agent.Watch{Failing: at, Expires: at.Add(49 * time.Hour), Inspected: at}, at)
	close(out)
	var got []string
	for m := range out {
		name, _, _ := strings.Cut(strings.SplitAfter(m.Desc().String(), "deploy_agent_")[1], `"`)
		got = append(got, fmt.Sprint(name, " ", testutil.ToFloat64(one{m})))
	}
	want := []string{"checks_failing 1", "root_modified 0", "root_compared_timestamp_seconds 1e+09", "certificate_expires_timestamp_seconds 1.0001764e+09", "certificate_days_left 2"}
	if !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// one is a collector of one metric.
type one struct{ m prometheus.Metric }

func (o one) Describe(out chan<- *prometheus.Desc) { out <- o.m.Desc() }
func (o one) Collect(out chan<- prometheus.Metric) { out <- o.m }
