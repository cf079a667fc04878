package console

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/wire"
)

// hosts returns what is known of hosts, with a name of one configuration only.
func (s *Session) hosts(ctx context.Context, name string) ([]registry.Host, error) {
	var recent []registry.Sighting
	if s.Daemon != nil {
		recent = s.Daemon.Sightings()
	}
	return s.Registry.Hosts(ctx, s.Caller.Configs, name, recent)
}

func hostNames(ctx context.Context, s *Session) ([]string, error) {
	all, err := s.hosts(ctx, "")
	var names []string
	for _, h := range all {
		names = append(names, h.Name)
	}
	return names, err
}

type hostsOp struct{}

func (*hostsOp) Flags(*pflag.FlagSet) {}

type hostList struct {
	Schema Schema    `json:"schema"`
	Hosts  []hostRow `json:"hosts"`
	now    time.Time
}

// hostRow is one agent.
type hostRow struct {
	Host           string        `json:"host"`
	Instance       string        `json:"instance"`
	Key            string        `json:"key_fingerprint,omitempty"`
	Comment        string        `json:"comment,omitempty"`
	Seen           time.Time     `json:"seen"`
	Silent         bool          `json:"silent"`
	Version        string        `json:"agent_version,omitempty"`
	Boot           string        `json:"boot,omitempty"`
	ClockAhead     int64         `json:"clock_ahead_seconds"` // of the registry's
	Configurations []standingRow `json:"configurations"`
}

type standingRow struct {
	Name     string            `json:"name"`
	Standing registry.Standing `json:"standing"`
}

func (*hostsOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	all, err := s.hosts(ctx, "")
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b registry.Host) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Instance, b.Instance))
	})
	out := hostList{Hosts: []hostRow{}, now: s.Registry.Now()}
	for _, h := range all {
		last := len(out.Hosts) - 1
		if last < 0 || out.Hosts[last].Host != h.Name || out.Hosts[last].Instance != h.Instance {
			out.Hosts = append(out.Hosts, hostRow{Host: h.Name, Instance: h.Instance, Silent: true})
			last++
		}
		out.Hosts[last].add(h, out.now)
	}
	return out, nil
}

// add adds what the agent is about for one more configuration.
func (r *hostRow) add(h registry.Host, now time.Time) {
	r.Configurations = append(r.Configurations, standingRow{h.Configuration, h.Standing()})
	r.Silent = r.Silent && h.Silent(now)
	if h.Seen.After(r.Seen) {
		r.Seen = h.Seen
	}
	if h.Report != nil {
		r.Key, r.Comment = h.Fingerprint, Clean(h.Comment)
		r.Version, r.Boot = Clean(h.Report.Program), Clean(h.Report.Boot)
		r.ClockAhead = int64(h.Report.Sent.Sub(h.Received) / time.Second)
	}
}

// Text shows an agent on a line.
func (l hostList) Text(w io.Writer) error {
	t := ownTable(w)
	for _, h := range l.Hosts {
		var all []string
		for _, c := range h.Configurations {
			all = append(all, c.Name+": "+string(c.Standing))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t", h.Host, dash(h.Instance), heard(h.Seen, l.now, h.Silent), dash(h.Version), strings.Join(all, ", "))
		if h.ClockAhead < -60 || h.ClockAhead > 60 {
			fmt.Fprintf(t, "its clock is %d s ahead\t", h.ClockAhead)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// heard says how long ago something was heard of a host.
func heard(seen, now time.Time, silent bool) string {
	if silent {
		return "silent for " + age(now.Sub(seen))
	}
	return "seen " + age(now.Sub(seen)) + " ago"
}

// age returns d in its greatest unit.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + "d"
}

func dash(s string) string { return cmp.Or(s, "-") }

type statusOp struct {
	configArg
	waiting
}

func (c *statusOp) Flags(fs *pflag.FlagSet) {
	c.configArg.Flags(fs)
	c.waiting.Flags(fs)
}

// fleetStatus is what status prints.
type fleetStatus struct {
	Schema    Schema      `json:"schema"`
	Hosts     []statusRow `json:"hosts"`
	Differing int         `json:"differing"`
	Silent    int         `json:"silent"`
	Failing   int         `json:"failing"` // run something that fails its checks
	now       time.Time
}

type statusRow struct {
	Configuration string            `json:"configuration"`
	Host          string            `json:"host"`
	Instance      string            `json:"instance"`
	Standing      registry.Standing `json:"standing"`
	Differs       bool              `json:"differs"`
	Silent        bool              `json:"silent"`
	Wanted        uint64            `json:"wanted_revision"`
	WantedDigest  digest.Digest     `json:"wanted_digest"`
	Running       uint64            `json:"running_revision"`
	RunningDigest digest.Digest     `json:"running_digest"`
	Since         time.Time         `json:"since,omitzero"`
	Verification  string            `json:"verification,omitempty"`
	Previous      uint64            `json:"previous_revision"`
	State         string            `json:"state,omitempty"` // of the agent's machine
	Seen          time.Time         `json:"seen"`
	Reported      time.Time         `json:"reported,omitzero"`
	Deployment    string            `json:"deployment,omitempty"` // under way, or the last one
	Verdict       string            `json:"verdict,omitempty"`    // on that
	Failing       string            `json:"failing,omitempty"`    // checks of what runs
	FailingSince  time.Time         `json:"failing_since,omitzero"`
	Expiring      string            `json:"expiring,omitempty"` // certificate that ends soon
	Modified      string            `json:"modified,omitempty"` // in what the root differs from what was unpacked
	Matter        string            `json:"matter,omitempty"`
}

func (c *statusOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if c.name != "" || len(args) > 0 {
		if err := c.alone(args); err != nil {
			return nil, err
		}
	}
	var out fleetStatus
	err := c.until(ctx, s, func() (pending string, err error) {
		out, err = c.look(ctx, s)
		return out.pending(), err
	})
	if err != nil {
		return nil, err
	}
	if len(out.Hosts) == 0 && !s.json {
		fmt.Fprintln(s.Stderr, "note: no agent has polled for it yet")
	}
	return out, nil
}

func (c *statusOp) look(ctx context.Context, s *Session) (fleetStatus, error) {
	all, err := s.hosts(ctx, c.name)
	if err == nil && len(all) == 0 && c.name != "" {
		_, err = s.Registry.Configuration(ctx, c.name)
	}
	if err != nil {
		return fleetStatus{}, err
	}
	out := fleetStatus{Hosts: []statusRow{}, now: s.Registry.Now()}
	for _, h := range all {
		row := statusOf(h, out.now)
		out.Hosts = append(out.Hosts, row)
		if row.Differs {
			out.Differing++
		}
		if row.Silent {
			out.Silent++
		}
		if row.Failing != "" {
			out.Failing++
		}
	}
	return out, nil
}

func statusOf(h registry.Host, now time.Time) statusRow {
	row := statusRow{
		Configuration: h.Configuration, Host: h.Name, Instance: h.Instance, Standing: h.Standing(), Differs: h.Differs(),
		Silent: h.Silent(now), Seen: h.Seen, Reported: h.Received, Matter: matter(h),
	}
	if h.Wanted != nil {
		row.Wanted, row.WantedDigest = h.Wanted.Revision, h.Wanted.Digest
	}
	if h.Report == nil {
		return row
	}
	row.State = Clean(h.Report.State)
	row.Failing, row.FailingSince = Clean(h.Report.Failing), h.Told(h.Report.FailingSince)
	row.Expiring, row.Modified = Clean(h.Report.Expiring), Clean(h.Report.Modified)
	if r := h.Report.Running; r != nil {
		row.Running, row.RunningDigest, row.Since, row.Verification = r.Revision, r.Digest, h.Told(r.Since), Clean(r.Verification)
	}
	if r := h.Report.Previous; r != nil {
		row.Previous = r.Revision
	}
	if d := h.Report.Deployment; d != nil {
		row.Deployment, row.Verdict = Clean(d.ID), Clean(d.Verdict)
	}
	return row
}

// matter says why a host does not run what is wanted, or what it waits for, and
// what is wrong with what it runs.
func matter(h registry.Host) string {
	var all []string
	if rep := h.Report; rep != nil {
		d, here := rep.Deployment, failed(h.Standing())
		if d != nil && here {
			all = append(all, failure(d))
		}
		all = append(all, behind(h))
		if d != nil && d.Broken != "" && !here {
			all = append(all, fmt.Sprintf("revision %d failed: %s", d.Revision, failure(d)))
		}
		if rep.Failing != "" {
			all = append(all, "fails its checks since "+timeText(h.Told(rep.FailingSince))+": "+Clean(rep.Failing))
		}
		if rep.Modified != "" {
			all = append(all, "its root is modified: "+Clean(rep.Modified))
		}
		all = append(all, Clean(rep.Expiring))
	}
	return strings.Join(slices.DeleteFunc(all, func(s string) bool { return s == "" }), "; ")
}

// failed reports whether a host stands so because its deployment failed.
func failed(s registry.Standing) bool { return s == registry.Broken || s == registry.RolledBack }

// behind says what keeps a host from what is wanted, or what it waits for.
func behind(h registry.Host) string {
	rep := h.Report
	switch standing := h.Standing(); {
	case standing == registry.Moved:
		return Clean("`current` names " + cmp.Or(rep.Moved, "nothing"))
	case rep.Hold != "":
		return Clean("held on the host: " + rep.Hold)
	case failed(standing):
		return ""
	case rep.Error != "":
		return Clean(rep.Error)
	case h.Hold != nil && standing != registry.Same:
		return Clean("held by the registry: " + h.Hold.Reason)
	}
	return ""
}

// failure is why a deployment failed, and why its rollback did as well.
func failure(d *wire.ReportedDeployment) string {
	if d.Broken == "" {
		return Clean(d.Reason)
	}
	return Clean(d.Reason + "; the rollback failed as well: " + d.Broken)
}

// Text shows a host on a line.
func (f fleetStatus) Text(w io.Writer) error {
	t := ownTable(w)
	for _, r := range f.Hosts {
		since := "-"
		if !r.Since.IsZero() {
			since = timeText(r.Since)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\twants %s, has %s\t%s\t%s\t%s\t", r.Configuration, r.Host, r.Standing,
			number(r.Wanted), number(r.Running), since, dash(r.Verification), heard(r.Seen, f.now, r.Silent))
		if r.Matter != "" {
			fmt.Fprintf(t, "%s\t", r.Matter)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

func number(revision uint64) string {
	if revision == 0 {
		return "-"
	}
	return strconv.FormatUint(revision, 10)
}

// count counts the hosts with a line that has it, each of them once.
func (f fleetStatus) count(has func(statusRow) bool) int {
	type machine struct{ host, instance string }
	seen := map[machine]bool{}
	for _, r := range f.Hosts {
		if has(r) {
			seen[machine{r.Host, r.Instance}] = true
		}
	}
	return len(seen)
}

// Outcome is an error if a host does not run what is wanted, or that fails.
func (f fleetStatus) Outcome() error {
	all := f.count(func(statusRow) bool { return true })
	switch {
	case f.Differing == 0 && f.Failing == 0:
		return nil
	case f.Differing == 0:
		failing := f.count(func(r statusRow) bool { return r.Failing != "" })
		return fmt.Errorf("%d of %d hosts run what is wanted, and it fails its checks", failing, all)
	}
	err := fmt.Errorf("%d of %d hosts do not run what is wanted", f.count(func(r statusRow) bool { return r.Differs }), all)
	for _, r := range f.Hosts {
		if failed(r.Standing) {
			hint := fmt.Sprintf("see 'log %s %s' for what its hook printed", r.Host, r.Configuration)
			if r.Deployment == "" {
				hint = onHost(r.Host, r.Configuration)
			}
			return &registry.Error{Text: err.Error(), Hint: hint}
		}
	}
	return err
}

// onHost says where the output is of a deployment that is not the host's last: reports
// carry only that of the last one, and no ID where another one failed.
func onHost(host, configuration string) string {
	return fmt.Sprintf("on %[1]s 'deploy-agent history -name %[2]s' lists the deployments, and 'deploy-agent log -name %[2]s ID' shows what the hook of one printed", host, configuration)
}
