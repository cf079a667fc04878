package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/layers/digest"
	"deploytools/verify"
	"deploytools/verify/spec"
)

// slowly has the look at the old root take an hour.
func (h *host) slowly() {
	once := h.agent.look.once
	h.agent.look.once = func(ctx context.Context, s spec.Spec, v verify.Vars) verify.Report {
		sleep(ctx, time.Hour)
		return once(ctx, s, v)
	}
}

// A person had to wait for the end of the look at the old root, and of unpacking.
func TestActsDoNotWaitForTheStepThatRuns(t *testing.T) {
	for _, act := range []string{"hold", "rollback"} {
		t.Run(act, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				h.versions(2)
				stop := h.serve()
				h.slowly()
				pass(time.Minute)
				h.src.put("v3", one("3"))
				pass(time.Minute)
				if s := h.agent.Record().State; s != Checking {
					t.Fatalf("in %s\n%s", s, h.logged)
				}
				began := time.Now()
				switch act {
				case "hold":
					must(h.agent.Hold(t.Context(), "freeze", Until{}))
				case "rollback":
					out := <-h.rollback("")
					if out.Err != nil || h.live() != "v2" {
						t.Errorf("rollback: %+v, %q is live", out, h.live())
					}
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("answered after %v", took)
				}
				pass(2 * time.Hour)
				stop()
				h.invariants()
			})
		})
	}
}

// hung is a registry whose blobs do not come until somebody gives up.
type hung struct {
	*fakeRegistry
	hang bool
}

func (r *hung) Fetch(ctx context.Context, d digest.Digest, offset int64, w io.Writer) error {
	if r.hang {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	return r.fakeRegistry.Fetch(ctx, d, offset, w)
}

// A layer that was lost before it could be unpacked is fetched in Unpacking.
func TestRollbackEndsUnpacking(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		src := &hung{fakeRegistry: h.src}
		h.o.Source = src
		h.versions(2)
		layer := h.src.now.Layers[0].Hash
		h.o.Observe.Enter = func(s State) {
			if s == Unpacking && !src.hang {
				src.hang = true
				must(os.Remove(h.agent.layerFile(layer)))
			}
		}
		stop := h.serve()
		pass(time.Minute)
		ended, err := h.agent.RepairAwaited(t.Context())
		must(err)
		synctest.Wait()
		if s := h.agent.Record().State; s != Unpacking {
			t.Fatalf("in %s\n%s", s, h.logged)
		}
		began := time.Now()
		h.rollback("1")
		if out := <-ended; out.Err == nil || time.Since(began) > time.Second {
			t.Errorf("after %v: %+v", time.Since(began), out)
		}
		pass(time.Minute)
		stop()
		h.invariants()
	})
}

// What is given up leaves no check script behind.
func TestCheckScriptOfWhatIsGivenUpIsEnded(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.versions(1)
		h.o.Hook.CheckScript = "./check.sh"
		h.hooks.unready = map[string]error{"./deploy.sh": errors.New("no such file")}
		stop := h.serve()
		pass(time.Minute)
		h.src.put("v2", one("2"))
		pass(time.Minute)
		id := h.agent.Record().Deployment.ID
		h.hooks.unready = nil
		h.src.put("v3", one("3"))
		pass(time.Minute)
		if !slices.Contains(h.hooks.ended, "check of "+id) || h.live() != "v3" {
			t.Errorf("ended %q, want that of %s; %q is live", h.hooks.ended, id, h.live())
		}
		stop()
	})
}
