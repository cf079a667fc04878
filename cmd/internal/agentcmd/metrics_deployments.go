package agentcmd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"deploytools/agent"
)

var (
	failuresDesc  = desc("failures_total", "Deployments that were bad since the process started, by the step that failed: unpack, validate, reload or verify.", "configuration", "step")
	rollbacksDesc = desc("rollbacks_total", "Rollbacks since the process started: restored, or also_failed, where the old root did not serve at once either.", "configuration", "outcome")
	unchangedDesc = desc("unchanged_total", "Revisions since the process started that have the layers that are live already.", "configuration")
	secondsDesc   = desc("deployment_seconds", "How long deployments took that have ended since the process started.", "configuration")

	failingDesc   = desc("checks_failing", "Whether the live root has failed its checks when it was last looked at between deployments.", "configuration")
	expiresDesc   = desc("certificate_expires_timestamp_seconds", "When the first certificate ends that a check has seen.", "configuration")
	daysDesc      = desc("certificate_days_left", "How many whole days that is from now.", "configuration")
	modifiedDesc  = desc("root_modified", "Whether the live root was not what was unpacked when it was last compared.", "configuration")
	inspectedDesc = desc("root_compared_timestamp_seconds", "When that was.", "configuration")
)

// steps name what a deployment can fail in, by the states.
var steps = map[agent.State]string{
	agent.Fetching: "unpack", agent.Unpacking: "unpack",
	agent.Checking:  "validate",
	agent.Switching: "reload", agent.Hooking: "reload",
	agent.Verifying: "verify", agent.Committing: "verify",
}

// The outcomes of rollbacks.
const (
	restored   = "restored"
	alsoFailed = "also_failed"
)

// ends counts how deployments ended, beyond their outcome.
type ends struct {
	failures  map[string]int // by step
	rollbacks map[string]int // by outcome
	unchanged int
	n         int
	took      time.Duration
}

func newEnds() ends { return ends{failures: map[string]int{}, rollbacks: map[string]int{}} }

func (e *ends) count(d *agent.Deployment) {
	if d.Verdict == agent.Bad {
		e.failures[steps[d.EndedIn()]]++
	}
	if d.Back != nil && d.Switched && d.Verdict != "" {
		outcome := restored
		if d.Broken != "" {
			outcome = alsoFailed
		}
		e.rollbacks[outcome]++
	}
	e.n++
	if took := d.Ended.Sub(d.Started); took > 0 {
		e.took += took
	}
}

func (e *ends) collect(s sender) {
	for _, step := range []string{"unpack", "validate", "reload", "verify"} {
		s.counter(failuresDesc, e.failures[step], step)
	}
	for _, outcome := range []string{restored, alsoFailed} {
		s.counter(rollbacksDesc, e.rollbacks[outcome], outcome)
	}
	s.counter(unchangedDesc, e.unchanged)
	s.out <- prometheus.MustNewConstSummary(secondsDesc, uint64(e.n), e.took.Seconds(), nil, s.name)
}

// seen sends what was seen of the live root.
func (s sender) seen(w agent.Watch, at time.Time) {
	s.fact(failingDesc, !w.Failing.IsZero())
	s.fact(modifiedDesc, !w.Altered.IsZero())
	if !w.Inspected.IsZero() {
		s.gauge(inspectedDesc, float64(w.Inspected.Unix()))
	}
	if !w.Expires.IsZero() {
		s.gauge(expiresDesc, float64(w.Expires.Unix()))
		s.gauge(daysDesc, float64(w.DaysLeft(at)))
	}
}
