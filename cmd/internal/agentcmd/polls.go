package agentcmd

import (
	"context"
	"hash/fnv"
	"io"
	"os"
	"sync"
	"time"

	"deploytools/agent"
	"deploytools/registry/client"
	"deploytools/registry/wire"
)

// polls asks the registry for several machines. Questions that come together
// are one request, and no machine's end ends the request of the others.
type polls struct {
	ctx context.Context // of every request
	all func(context.Context, []string) ([]wire.PollState, []error)

	mu      sync.Mutex // guards what follows
	waiting []question
	asking  bool
}

type question struct {
	name   string
	answer chan<- answer // has room for it
}

type answer struct {
	state wire.PollState
	err   error
}

// gather is how long a request waits for further questions: the machines of one
// process poll in step.
const gather = 20 * time.Millisecond

func (p *polls) ask(ctx context.Context, name string) (wire.PollState, error) {
	reply := make(chan answer, 1)
	p.mu.Lock()
	p.waiting = append(p.waiting, question{name, reply})
	if !p.asking {
		p.asking = true
		go p.work() // ends when nobody waits any more, or soon after p.ctx
	}
	p.mu.Unlock()
	select {
	case a := <-reply:
		return a.state, a.err
	case <-ctx.Done():
		return wire.PollState{}, context.Cause(ctx)
	}
}

// work answers until nobody waits.
func (p *polls) work() {
	for {
		select {
		case <-time.After(gather):
		case <-p.ctx.Done():
		}
		batch := p.take()
		if len(batch) == 0 {
			return
		}
		names := make([]string, len(batch))
		for i, q := range batch {
			names[i] = q.name
		}
		states, errs := p.all(p.ctx, names)
		for i, q := range batch {
			q.answer <- answer{states[i], errs[i]}
		}
	}
}

// take returns who waits; nobody: work ends.
func (p *polls) take() []question {
	p.mu.Lock()
	defer p.mu.Unlock()
	batch := p.waiting
	p.waiting, p.asking = nil, len(batch) > 0
	return batch
}

// line is one machine's end of the connection.
type line struct {
	*client.Client
	ask    func(ctx context.Context, name string) (wire.PollState, error)
	shared bool // with other machines
	heard  func(wire.PollState, error)
}

var _ agent.Source = line{}

// Poll asks, together with the other machines if there are any.
func (l line) Poll(ctx context.Context, name string) (wire.PollState, error) {
	st, err := l.ask(ctx, name)
	if ctx.Err() == nil {
		l.heard(st, err)
	}
	return st, err
}

// Close leaves the connection to the others.
func (l line) Close() error {
	if l.shared {
		return nil
	}
	return l.Client.Close()
}

// step returns the seed by which the machines of this host poll in step: the same
// after each start, and another on each host.
func step(names string) uint64 {
	h := fnv.New64a()
	host, _ := os.Hostname()
	machineID, _ := os.ReadFile("/etc/machine-id")
	io.WriteString(h, host+" "+names+" ")
	h.Write(machineID)
	return h.Sum64() | 1
}
