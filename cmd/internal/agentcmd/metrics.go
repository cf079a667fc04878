package agentcmd

import (
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"deploytools/agent"
	"deploytools/registry/wire"
)

// metrics shows Prometheus what the members do. Numbers are read when they are
// asked for.
type metrics struct {
	members []*member
	build   wire.Build
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("deploy_agent_"+name, help, labels, nil)
}

var (
	buildDesc       = desc("build_info", "What the agent was built from, as labels.", "version", "commit", "go")
	runningDesc     = desc("running", "Whether the machine of the configuration is at work: 0 while it waits to be started again.", "configuration")
	aliveDesc       = desc("alive", "Whether it gets on: 0 when it hangs.", "configuration")
	stateDesc       = desc("state", "The state it is in: 1, all others 0.", "configuration", "state")
	liveDesc        = desc("live_revision", "The revision that is live.", "configuration")
	verifiedDesc    = desc("live_verified", "Whether checks have verified what is live.", "configuration")
	sinceDesc       = desc("live_since_timestamp_seconds", "When it was committed.", "configuration")
	newestDesc      = desc("registry_revision", "The revision that the registry had at the last poll.", "configuration")
	polledDesc      = desc("last_poll_timestamp_seconds", "When the registry last answered.", "configuration")
	pollsDesc       = desc("polls_total", "Polls since the process started.", "configuration", "result")
	deploymentsDesc = desc("deployments_total", "Deployments that have ended since the process started.", "configuration", "outcome")
	restartsDesc    = desc("restarts_total", "How often the machine ended and was started again.", "configuration")
	heldDesc        = desc("held", "Whether a hold, here or at the registry, keeps new revisions away.", "configuration")
	failedDesc      = desc("failed_configurations", "Configurations that have failed here and are not tried again by themselves.", "configuration")
	freeDesc        = desc("disk_free_bytes", "What is free on the disk of the directory.", "configuration")
	inodesDesc      = desc("disk_free_inodes", "How many files can still be made there.", "configuration")
)

// tally is what one member counts.
type tally struct {
	mu       sync.Mutex // guards all of it
	last     wire.PollState
	polled   time.Time
	polls    map[string]int // by result
	outcomes map[string]int
	restarts int
	ends     ends
}

func newTally() *tally {
	return &tally{polls: map[string]int{}, outcomes: map[string]int{}, ends: newEnds()}
}

// poll counts an answer of the registry.
func (t *tally) poll(st wire.PollState, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		t.polls["error"]++
		return
	}
	t.polls["ok"]++
	t.last, t.polled = st, time.Now()
}

// committed is the outcome of a deployment that has no verdict.
const committed = "committed"

func (t *tally) ended(d *agent.Deployment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends.count(d)
	if d.Verdict == "" {
		t.outcomes[committed]++
		return
	}
	t.outcomes[string(d.Verdict)]++
}

// unchanged counts a revision that needed no deployment.
func (t *tally) unchanged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ends.unchanged++
}

func (t *tally) restarted() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.restarts++
}

// Describe sends what there is.
func (m metrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect sends all numbers. What is not known is left out.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	out <- prometheus.MustNewConstMetric(buildDesc, prometheus.GaugeValue, 1, m.build.Version, m.build.Commit, m.build.Go)
	for _, one := range m.members {
		one.collect(sender{out, one.o.Name})
	}
}

// sender sends the numbers of one configuration.
type sender struct {
	out  chan<- prometheus.Metric
	name string
}

func (s sender) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, slices.Insert(labels, 0, s.name)...)
}

func (s sender) counter(d *prometheus.Desc, v int, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), slices.Insert(labels, 0, s.name)...)
}

func (s sender) fact(d *prometheus.Desc, v bool) {
	n := 0.0
	if v {
		n = 1
	}
	s.gauge(d, n)
}

func (m *member) collect(s sender) {
	s.fact(runningDesc, m.machine() != nil)
	s.fact(aliveDesc, m.alive())
	m.tally.collect(s)
	if r := m.record(); r != nil {
		for _, state := range agent.States() {
			n := 0.0
			if state == r.State {
				n = 1
			}
			s.gauge(stateDesc, n, string(state))
		}
		s.fact(heldDesc, r.Hold != nil || m.tally.heldThere())
		s.gauge(failedDesc, float64(len(r.Marks)))
		if r.Live != nil {
			s.gauge(liveDesc, float64(r.Live.Configuration.Revision))
			s.fact(verifiedDesc, r.Live.Verification == agent.Verified)
			s.gauge(sinceDesc, float64(r.Live.Committed.Unix()))
			s.seen(r.Seen(), time.Now())
		}
	}
	var disk unix.Statfs_t
	if unix.Statfs(m.o.Dir, &disk) == nil {
		s.gauge(freeDesc, float64(disk.Bavail)*float64(disk.Bsize))
		s.gauge(inodesDesc, float64(disk.Ffree))
	}
}

func (t *tally) heldThere() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last.Hold != nil
}

func (t *tally) collect(s sender) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, result := range []string{"ok", "error"} {
		s.counter(pollsDesc, t.polls[result], result)
	}
	for _, outcome := range []string{committed, string(agent.Bad), string(agent.Superseded), string(agent.Withdrawn), string(agent.DryRun)} {
		s.counter(deploymentsDesc, t.outcomes[outcome], outcome)
	}
	s.counter(restartsDesc, t.restarts)
	t.ends.collect(s)
	if !t.polled.IsZero() {
		s.gauge(newestDesc, float64(t.last.Revision))
		s.gauge(polledDesc, float64(t.polled.Unix()))
	}
}

// textfile writes the metrics where node_exporter reads them, without those of
// the process: it has its own of these names.
type textfile struct {
	path   string
	all    *prometheus.Registry
	log    *slog.Logger
	wanted chan struct{} // has room for one
	said   string        // last error
}

func newTextfile(path string, m metrics, log *slog.Logger) *textfile {
	all := prometheus.NewRegistry()
	all.MustRegister(m)
	return &textfile{path: path, all: all, log: log, wanted: make(chan struct{}, 1)}
}

// want has the file written soon. It never waits.
func (f *textfile) want() {
	select {
	case f.wanted <- struct{}{}:
	default:
	}
}

// write replaces the file: who reads it sees the old or the new one.
func (f *textfile) write() {
	err := prometheus.WriteToTextfile(f.path, f.all)
	text := ""
	if e, ok := errors.AsType[*fs.PathError](err); ok { // of a temporary file, which has another name each time
		err = &fs.PathError{Op: e.Op, Path: f.path, Err: e.Err}
	}
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != f.said {
		f.log.Warn("metrics file not written", "error", err)
	}
	f.said = text
}
