package agent

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// ordeal is one deployment with the faults that it meets.
type ordeal struct {
	content   string // what is wrong with the version: a fail- name, "refused", or nothing
	transfers []transferFault
	away      time.Duration // the registry, from before the version is there
	restart   time.Duration // the agent, so long after it could first see the version
	outage    outage        // of all that the checks look at
	rehooks   int           // the script fails so often on the way back
}

// outage says when nothing that the checks look at answers.
type outage int

const (
	noOutage outage = iota
	throughout
	afterSwitch // until the deployment is over
)

// transferFault is what one transfer of a layer does instead of its work.
type transferFault func(ctx context.Context, blob []byte, w io.Writer) error

var transferFaults = map[string]transferFault{
	"cut": func(_ context.Context, blob []byte, w io.Writer) error {
		w.Write(blob[:len(blob)/2])
		return wire.ErrUnreachable
	},
	"exchanged": func(_ context.Context, blob []byte, w io.Writer) error {
		_, err := w.Write([]byte(strings.Repeat("x", len(blob))))
		return err
	},
	"truncated": func(_ context.Context, blob []byte, w io.Writer) error {
		_, err := w.Write(blob[:len(blob)-min(len(blob), 7)])
		return err
	},
	"longer": func(_ context.Context, blob []byte, w io.Writer) error {
		_, err := w.Write(append(blob[:len(blob):len(blob)], "and more"...))
		return err
	},
	"gone":   func(context.Context, []byte, io.Writer) error { return wire.ErrNotFound },
	"denied": func(context.Context, []byte, io.Writer) error { return wire.ErrDenied },
	"panic":  func(context.Context, []byte, io.Writer) error { panic("seeded") },
	"black hole": func(ctx context.Context, _ []byte, _ io.Writer) error {
		<-ctx.Done() // the agent gives up
		return context.Cause(ctx)
	},
}

// maxRehooks is how often the script is tried on the way back.
const maxRehooks = 3

func newOrdeal(r *rand.Rand) (o ordeal) {
	pick := func(percent int) bool { return r.IntN(100) < percent }
	if pick(50) {
		o.content = []string{failCheck, failHook, failVerify, "refused"}[r.IntN(4)]
	}
	for pick(40) && len(o.transfers) < 6 {
		names := []string{"cut", "exchanged", "truncated", "longer", "gone", "denied", "panic", "black hole"}
		o.transfers = append(o.transfers, transferFaults[names[r.IntN(len(names))]])
	}
	if pick(15) {
		o.away = time.Duration(r.IntN(7200)) * time.Second
	}
	if pick(30) {
		o.restart = time.Duration(r.IntN(60_000)) * time.Millisecond
	}
	if pick(20) {
		o.outage = throughout + outage(r.IntN(2))
	}
	if pick(20) {
		o.rehooks = r.IntN(maxRehooks + 1)
	}
	return o
}

// wins reports whether the version is to be live in the end.
func (o ordeal) wins() bool {
	return o.content == "" && o.outage != afterSwitch || o.content == failVerify && o.outage == throughout
}

// switches reports whether the version becomes live at all.
func (o ordeal) switches() bool { return o.content != failCheck && o.content != "refused" }

func (o ordeal) layer(version string) []byte {
	f := files{"version": version}
	switch o.content {
	case "":
	case "refused":
		f["../outside"] = version
	default:
		f[o.content] = version
	}
	return archive(f)
}

// trial is a host that goes through one ordeal after another.
type trial struct {
	*host
	stop func()
	out  atomic.Bool // nothing answers the checks
	ordeal
	left, failed int // transfers that came, hooks that failed on the way back
}

// Whatever hook, service and network do in a thousand deployments, each ends as
// it has to, and no root is another than what was unpacked.
func TestAThousandDeploymentsEndRight(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		tr := &trial{host: h}
		h.o.Poll = Poll{Interval: time.Minute}
		h.o.Hook.CheckScript = "./check.sh"
		h.o.Keep.Delay = time.Second
		h.patience = 5 * time.Second
		h.env = tr.out.Load
		h.hooks.exit = tr.exit
		h.o.Source = badLine{h.src, tr}
		h.src.put("v0", one("0"))
		h.want("v0", nil)
		tr.stop = h.serve()
		defer func() { tr.stop() }()
		serving, verified := "v0", "v0"
		deployments := 1000
		if underRace {
			deployments = 100
		}
		for i := range deployments {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			tr.ordeal, tr.left, tr.failed = newOrdeal(r), 0, 0
			version := fmt.Sprint("v", i+1)
			before := len(h.calls)
			tr.through(version)
			after := len(h.calls)
			switch {
			case tr.wins():
				serving = version
				if tr.outage != throughout {
					verified = version
				}
			case tr.switches() && tr.rehooks == maxRehooks: // neither version works: the next one is the way out
				if st := h.agent.Record().State; st != Broken {
					t.Fatalf("%d: came to rest in %s, want Broken, after %+v\n%s", i, st, tr.ordeal, recent(h))
				}
				h.invariants()
				tr.ordeal = ordeal{}
				serving, verified = version+"-mended", version+"-mended"
				tr.through(serving)
			case tr.switches():
				serving = verified // what no check has seen working is not gone back to
			}
			if got := h.live(); got != serving {
				t.Fatalf("%d: %q is live, want %q, after %+v\n%s", i, got, serving, tr.ordeal, recent(h))
			}
			if n := deploys(h.calls[before:after]); n > 1 {
				t.Fatalf("%d: the hook ran %d times for one deployment, after %+v", i, n, tr.ordeal)
			}
			h.invariants()
			if t.Failed() {
				t.Fatalf("%d: after %+v\n%s", i, tr.ordeal, recent(h))
			}
			h.logged.Reset()
		}
	})
}

// through lets one version meet its faults, and waits until all is at rest.
func (tr *trial) through(version string) {
	layer := tr.layer(version)
	tr.out.Store(tr.outage == throughout)
	if tr.away > 0 {
		tr.src.set(func() { tr.src.down = wire.ErrUnreachable })
		pass(tr.away)
		tr.src.put(version, layer)
		tr.src.set(func() { tr.src.down = nil })
	} else {
		tr.src.put(version, layer)
	}
	if tr.restart > 0 {
		pass(tr.restart)
		tr.stop()
		tr.stop = tr.serve()
	}
	pass(50 * time.Minute) // the longest waits between tries, and the transfers that hang
	tr.out.Store(false)
	pass(10 * time.Minute) // Broken looks again, at its own pace
}

// badLine is the registry at the end of a line with the trial's faults.
type badLine struct {
	*fakeRegistry
	tr *trial
}

func (l badLine) Fetch(ctx context.Context, d digest.Digest, offset int64, w io.Writer) error {
	var blob []byte
	l.set(func() { blob = l.blobs[d] })
	if offset > int64(len(blob)) {
		return io.ErrUnexpectedEOF
	}
	if tr := l.tr; tr.left < len(tr.transfers) {
		tr.left++
		return tr.transfers[tr.left-1](ctx, blob[offset:], w)
	}
	_, err := w.Write(blob[offset:])
	return err
}

// exit is how the programs end, but for what is wrong with the version.
func (tr *trial) exit(env map[string]string) int {
	if env["DEPLOY_PHASE"] == "check" {
		return 0
	}
	if tr.outage == afterSwitch && env["DEPLOY_ACTION"] == "deploy" {
		tr.out.Store(true)
		return 0
	}
	if env["DEPLOY_ACTION"] == "rollback" && tr.failed < tr.rehooks {
		tr.failed++
		return 1
	}
	return 0
}

// deploys counts the calls of the script that bring something new.
func deploys(calls []map[string]string) (n int) {
	for _, env := range calls {
		if env["DEPLOY_PHASE"] != "check" && env["DEPLOY_ACTION"] == "deploy" {
			n++
		}
	}
	return n
}

// recent is the end of what the agent has logged.
func recent(h *host) string {
	text := h.logged.String()
	return text[max(0, len(text)-6000):]
}
