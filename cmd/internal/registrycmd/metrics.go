package registrycmd

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"deploytools/cmd/internal/ops"
	"deploytools/registry"
	"deploytools/registry/console"
	"deploytools/registry/wire"
)

// metrics shows Prometheus what the registry counts. All numbers are read when
// they are asked for, from where the command stats has them.
type metrics struct {
	daemon  interface{ Stats() console.Stats }
	reg     *registry.Registry
	dir     string // the disk that counts
	build   wire.Build
	storing func(context.Context) error
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("deploy_registry_"+name, help, labels, nil)
}

var (
	buildDesc       = desc("build_info", "What the registry was built from, as labels.", "version", "commit", "go")
	writableDesc    = desc("storage_writable", "Whether changes can be stored: 0 after a failed write, until a restart.")
	componentsDesc  = desc("components", "Components.")
	configDesc      = desc("configurations", "Configurations.")
	uploadsDesc     = desc("uploads", "Uploads that are no version yet.")
	checksDesc      = desc("checks", "Checks of uploads that go on, or wait for memory.", "state")
	hostsDesc       = desc("hosts", "Hosts, for each of their configurations, by where they stand with it.", "standing")
	silentDesc      = desc("hosts_silent", "Of these, those of which nothing was heard for too long.")
	freeDesc        = desc("disk_free_bytes", "What is free on the disk of the registry's directory.")
	sizeDesc        = desc("disk_size_bytes", "Size of the disk of the registry's directory.")
	connectionsDesc = desc("connections", "Connections that have authenticated.", "role")
	waitingDesc     = desc("connections_waiting", "Connections that have not authenticated.")
	penalisedDesc   = desc("penalised_sources", "Addresses that are refused for their failures.")
	sessionsDesc    = desc("sessions", "Sessions that run something.")
	filesDesc       = desc("open_files", "Files that are open over SFTP.")
	acceptedDesc    = desc("connections_accepted_total", "Connections, whatever became of them.")
	refusedDesc     = desc("connections_refused_total", "Connections that ended before anybody authenticated.", "reason")
	commandsDesc    = desc("commands_total", "Commands that were run, and sessions of SFTP.", "command", "status")
	secondsDesc     = desc("command_seconds_total", "How long they took, all together.", "command", "status")
	pollsDesc       = desc("polls_total", "Polls of agents.")
	reportsDesc     = desc("reports_total", "Reports of agents.")
	receivedDesc    = desc("received_bytes_total", "Bytes that came over SSH connections.")
	sentDesc        = desc("sent_bytes_total", "Bytes that went over SSH connections.")
	errorsDesc      = desc("internal_errors_total", "Faults on our side; each is a line in the log.")
)

// handler returns the page.
func (m metrics) handler() http.Handler { return ops.Metrics(m) }

// Describe sends what there is.
func (m metrics) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, out) }

// Collect sends all numbers. What cannot be read is left out: a number that is
// missing can be alerted on, one that is wrong cannot.
func (m metrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	m.stored(gauge)
	s := m.daemon.Stats()
	gauge(buildDesc, 1, m.build.Version, m.build.Commit, m.build.Go)
	gauge(connectionsDesc, float64(s.Agents), registry.Agent.String())
	gauge(connectionsDesc, float64(s.Operators), registry.Operator.String())
	gauge(waitingDesc, float64(s.Waiting))
	gauge(penalisedDesc, float64(s.Penalised))
	gauge(sessionsDesc, float64(s.Sessions))
	gauge(filesDesc, float64(s.Files))
	counter(acceptedDesc, s.Accepted)
	for reason, n := range s.Refused {
		counter(refusedDesc, n, reason)
	}
	for _, c := range s.Commands {
		counter(commandsDesc, c.Calls, c.Name, c.Status.String())
		out <- prometheus.MustNewConstMetric(secondsDesc, prometheus.CounterValue, c.Took.Seconds(), c.Name, c.Status.String())
	}
	counter(pollsDesc, s.Polls)
	counter(reportsDesc, s.Reports)
	counter(receivedDesc, s.Received)
	counter(sentDesc, s.Sent)
	counter(errorsDesc, s.Errors)
}

// stored sends what the storage holds.
func (m metrics) stored(gauge func(*prometheus.Desc, float64, ...string)) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	writable := 0.0
	if m.storing(ctx) == nil {
		writable = 1
	}
	gauge(writableDesc, writable)
	if all, err := m.reg.Components(ctx); err == nil {
		gauge(componentsDesc, float64(len(all)))
	}
	if all, err := m.reg.Configurations(ctx); err == nil {
		gauge(configDesc, float64(len(all)))
	}
	if all, err := m.reg.Uploads(ctx); err == nil {
		gauge(uploadsDesc, float64(len(all)))
	}
	running, waiting := m.reg.Checks()
	gauge(checksDesc, float64(running), "running")
	gauge(checksDesc, float64(waiting), "waiting")
	m.hosts(ctx, gauge)
	var disk unix.Statfs_t
	if unix.Statfs(m.dir, &disk) == nil {
		gauge(freeDesc, float64(disk.Bavail)*float64(disk.Bsize))
		gauge(sizeDesc, float64(disk.Blocks)*float64(disk.Bsize))
	}
}

// hosts sends how many hosts stand how.
func (m metrics) hosts(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string)) {
	all, err := m.reg.Hosts(ctx, "", "", nil)
	if err != nil {
		return
	}
	stand, silent := map[registry.Standing]int{}, 0
	for _, h := range all {
		stand[h.Standing()]++
		if h.Silent(m.reg.Now()) {
			silent++
		}
	}
	for _, s := range registry.Standings {
		gauge(hostsDesc, float64(stand[s]), string(s))
	}
	gauge(silentDesc, float64(silent))
}

// recent answers from memory for some time: the question costs a write, and
// whoever reaches the page may ask often.
func recent(ask func(context.Context) error, age time.Duration) func(context.Context) error {
	var mu sync.Mutex
	var asked time.Time
	var last error
	return func(ctx context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if asked.IsZero() || time.Since(asked) >= age {
			last, asked = ask(ctx), time.Now()
		}
		return last
	}
}
