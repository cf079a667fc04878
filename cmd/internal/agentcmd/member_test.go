package agentcmd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// empty is a registry that has nothing.
type empty struct{}

func (empty) Poll(_ context.Context, name string) (wire.PollState, error) {
	return wire.PollState{Name: name}, nil
}
func (empty) Configuration(context.Context, string) (*wire.Configuration, error) {
	return nil, wire.ErrNotFound
}
func (empty) Fetch(context.Context, digest.Digest, int64, io.Writer) error { return wire.ErrNotFound }
func (empty) Close() error                                                 { return nil }

// A fault of ours in one configuration ended them all.
func TestPanicOfOneDoesNotEndTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var logged bytes.Buffer
		log := slog.New(slog.NewTextHandler(writer(func(b []byte) (int, error) {
			mu.Lock()
			defer mu.Unlock()
			return logged.Write(b)
		}), nil))
		panics, others := 0, 0
		told := newTold([]string{"web", "api"})
		ends := func(name string, each func()) *member {
			o := agent.Options{Name: name, Dir: t.TempDir(), Source: empty{}}
			o.Observe = agent.Observe{Log: log, Notify: func(string) { each(); told.know(name) }}
			return &member{o: o, told: told, tally: newTally(), shown: func() {}, log: log}
		}
		web := ends("web", func() {
			if panics++; panics < 3 {
				panic("out of order")
			}
		})
		api := ends("api", func() { others++ })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- serve(ctx, []*member{web, api}, nil, log) }()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if web.machine() != nil || api.machine() == nil || !told.isReady() {
			t.Errorf("two seconds later: web %v, api %v", web.machine(), api.machine())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if web.machine() == nil || panics != 3 {
			t.Errorf("a minute later web does not run, after %d panics", panics)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve = %v", err)
		}
		if n := strings.Count(logged.String(), "level=ERROR msg=panic configuration=web error=\"out of order\" stack="); n != 2 || others == 0 {
			t.Errorf("%d panics logged, api told %d\n%s", n, others, logged.String())
		}
	})
}

type writer func([]byte) (int, error)

func (w writer) Write(b []byte) (int, error) { return w(b) }

func TestWorst(t *testing.T) {
	for _, row := range []struct {
		name string
		errs []error
		want wire.Status
	}{
		{"all well", []error{nil, nil}, wire.OK},
		{"one", []error{nil, agent.ErrHeld}, wire.NotNow},
		{"broken is worst", []error{agent.ErrRolledBack, wire.ErrUnreachable, agent.ErrBroken}, wire.Broken},
		{"what fails is worse than what waits", []error{agent.ErrNotNow, errors.New("disk"), wire.ErrUnreachable}, wire.Failed},
		{"rolled back is worse than away", []error{wire.ErrUnreachable, agent.ErrRolledBack}, wire.RolledBack},
	} {
		if got := cli.StatusOf(worst(row.errs)); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
	}
}

// A question that is asked while a request is under way is in the next one, and
// whoever goes away takes nobody's answer along.
func TestPollsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var requests [][]string
		hold := make(chan struct{})
		p := &polls{ctx: t.Context(), all: func(_ context.Context, names []string) ([]wire.PollState, []error) {
			requests = append(requests, names)
			<-hold
			states, errs := make([]wire.PollState, len(names)), make([]error, len(names))
			for i, name := range names {
				states[i].Name = name
				if name == "bad" {
					errs[i] = wire.ErrDenied
				}
			}
			return states, errs
		}}
		ask := func(ctx context.Context, name string, want error) {
			go func() {
				if st, err := p.ask(ctx, name); !errors.Is(err, want) || err == nil && st.Name != name {
					t.Errorf("ask(%s) = %v, %v, want %v", name, st, err, want)
				}
			}()
		}
		gone, leave := context.WithCancel(t.Context())
		ask(t.Context(), "a", nil)
		ask(gone, "b", context.Canceled)
		ask(t.Context(), "bad", wire.ErrDenied)
		time.Sleep(time.Second)
		ask(t.Context(), "c", nil)
		leave()
		time.Sleep(time.Second)
		close(hold)
		time.Sleep(time.Second)
		synctest.Wait()
		if len(requests) != 2 || len(requests[0]) != 3 || len(requests[1]) != 1 || p.asking {
			t.Errorf("requests %q, want one for three and one for who came later; still asking: %t", requests, p.asking)
		}
	})
}
