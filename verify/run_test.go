package verify

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deploytools/verify/spec"
)

// script is a probe that answers from a list per check, the last answer for
// ever, and notes when it was asked. "" passes, "hang" waits for the context.
type script struct {
	mu      sync.Mutex
	answers map[string][]Kind
	asked   map[string][]time.Duration // since start
	start   time.Time
}

func newScript(answers map[string][]Kind) *script {
	return &script{answers: answers, asked: map[string][]time.Duration{}, start: time.Now()}
}

func (s *script) probe(ctx context.Context, c spec.Check, _ Vars) Finding {
	s.mu.Lock()
	list := s.answers[c.Name]
	kind := list[min(len(s.asked[c.Name]), len(list)-1)]
	s.asked[c.Name] = append(s.asked[c.Name], time.Since(s.start))
	s.mu.Unlock()
	if kind == "hang" {
		<-ctx.Done()
		return lost(ctx, Dial, ctx.Err())
	}
	return Finding{Kind: kind, Detail: "scripted"}
}

func seconds(ns ...int) []time.Duration {
	var ds []time.Duration
	for _, n := range ns {
		ds = append(ds, time.Duration(n)*time.Second)
	}
	return ds
}

// named is a specification with one check per name.
func named(names ...string) spec.Spec {
	var s spec.Spec
	for _, n := range names {
		s.Checks = append(s.Checks, spec.Check{Type: spec.TCP, Name: n, Addr: "a:1"})
	}
	return s
}

// repeat is list n times over.
func repeat(n int, list ...Kind) []Kind { return slices.Repeat(list, n) }

// V-04: looks ended after three seconds, long before their longest pause, and no
// budget said when they would.
func TestV04PausesDoubleUpTo16SecondsUntilTheTotalIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScript(map[string][]Kind{"a": {Dial}})
		r := run(t.Context(), named("a"), Vars{}, nil, p.probe)
		want := seconds(0, 1, 3, 7, 15, 31, 47, 63, 79, 95, 111)
		if !slices.Equal(p.asked["a"], want) {
			t.Errorf("looked at %v, want %v", p.asked["a"], want)
		}
		f := r.Findings[0]
		if r.OK || r.Verified || r.State() != "failed" || f.Kind != Dial || f.Attempts != len(want) || r.Took != 111*time.Second {
			t.Errorf("report %+v", r)
		}
		if f.At.Sub(r.Started) != 111*time.Second {
			t.Errorf("last look at %v after the start, want 111s", f.At.Sub(r.Started))
		}
	})
}

// The first reason was told, and the one that stood in the way at last was not.
func TestEachRoundThatMissesIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScript(map[string][]Kind{"a": {""}, "b": {"", Dial, "", Body, ""}})
		began, told := time.Now(), []string{}
		s := named("a", "b")
		s.Successes = 2
		r := run(t.Context(), s, Vars{}, func(missed []Finding) {
			for _, f := range missed {
				told = append(told, fmt.Sprintf("%v: %s %s", time.Since(began), f.Check, f.Kind))
			}
		}, p.probe)
		if want := []string{"1s: b dial", "3s: b body"}; !r.OK || !slices.Equal(told, want) {
			t.Errorf("told %q, want %q; report %+v", told, want, r)
		}
	})
}

func TestRunEndsWithTheFirstRoundThatPasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScript(map[string][]Kind{"a": {Dial, Dial, ""}, "b": {""}})
		r := run(t.Context(), named("a", "b"), Vars{}, nil, p.probe)
		if !r.OK || !r.Verified || r.State() != "verified" || r.Took != 3*time.Second {
			t.Errorf("report %+v", r)
		}
		if f := r.Findings[0]; f.Check != "a" || f.Attempts != 3 || f.Kind != "" || f.Type != spec.TCP || f.Target != "a:1" {
			t.Errorf("finding %+v", f)
		}
	})
}

func TestChecksMustPassInTheSameRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScript(map[string][]Kind{"a": {"", Dial, ""}, "b": {Dial, "", ""}})
		r := run(t.Context(), named("a", "b"), Vars{}, nil, p.probe)
		if want := seconds(0, 1, 3); !r.OK || !slices.Equal(p.asked["a"], want) {
			t.Errorf("looked at %v, want %v: %+v", p.asked["a"], want, r)
		}
	})
}

func TestChecksRunAtTheSameTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newScript(map[string][]Kind{"a": {"hang"}, "b": {"hang"}, "c": {"hang"}})
		r := once(t.Context(), named("a", "b", "c"), Vars{}, p.probe)
		if r.Took != spec.DefaultTimeout || len(r.Failed()) != 3 {
			t.Errorf("took %v, want %v: %+v", r.Took, spec.DefaultTimeout, r)
		}
	})
}

// V-05: right after a reload one worker serves the new certificate already and
// the next one still the old: one success by luck ended the check.
func TestV05AlternatingServerNeedsSuccessesInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flapping := repeat(100, WrongCert, "")
		s := named("a")
		s.Successes = 3
		p := newScript(map[string][]Kind{"a": flapping})
		if r := run(t.Context(), s, Vars{}, nil, p.probe); r.OK {
			t.Errorf("alternating: %+v", r)
		}
		p = newScript(map[string][]Kind{"a": append(repeat(2, WrongCert, ""), "", "")})
		r := run(t.Context(), s, Vars{}, nil, p.probe)
		// fail +1s, pass +1s, fail +2s, three passes 1 s apart
		if want := seconds(0, 1, 2, 4, 5, 6); !r.OK || !slices.Equal(p.asked["a"], want) {
			t.Errorf("settling: looked at %v, want %v: %+v", p.asked["a"], want, r)
		}
	})
}

func TestUnsteadyIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := named("a")
		s.Successes, s.Total = 3, 2*time.Second
		p := newScript(map[string][]Kind{"a": {WrongCert, ""}})
		f := run(t.Context(), s, Vars{}, nil, p.probe).Findings[0]
		if f.OK || f.Kind != Unsteady || f.Detail != "passed 1 times in a row, want 3; before that: wrong-cert: scripted" {
			t.Errorf("%+v", f)
		}
	})
}

func TestTotalCutsALookAndKeepsTheReasonBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := named("a", "b", "c")
		s.Total = 5 * time.Second
		p := newScript(map[string][]Kind{"a": {WrongCert, "hang"}, "b": {"hang"}, "c": {""}})
		s.Checks[1].Timeout = 2 * time.Second
		r := run(t.Context(), s, Vars{}, nil, p.probe)
		if r.Took != 5*time.Second {
			t.Errorf("took %v, want 5s", r.Took)
		}
		a, b, c := r.Findings[0], r.Findings[1], r.Findings[2]
		if a.Kind != WrongCert || a.Attempts != 2 || b.Kind != Timeout || !c.OK {
			t.Errorf("findings %+v", r.Findings)
		}
	})
}

func TestDeadlineOfTheCallerIsAFailureAndNoCancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		p := newScript(map[string][]Kind{"a": {"hang"}, "b": {Dial}})
		r := run(ctx, named("a", "b"), Vars{}, nil, p.probe)
		if r.Took != 4*time.Second || r.Findings[0].Kind != Timeout || r.Findings[1].Kind != Dial {
			t.Errorf("report %+v", r)
		}
	})
}

func TestCancelIsNoVerdict(t *testing.T) {
	for name, after := range map[string]time.Duration{"before": 0, "in a look": 500 * time.Millisecond, "in a pause": 10500 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if after == 0 {
				cancel()
			}
			time.AfterFunc(after, cancel)
			p := newScript(map[string][]Kind{"a": {"hang"}, "b": {WrongCert}})
			r := run(ctx, named("a", "b"), Vars{}, nil, p.probe)
			if r.OK || r.Verified || r.Took != after {
				t.Errorf("%s: report %+v", name, r)
			}
			for _, f := range r.Findings {
				if f.Kind != Cancelled {
					t.Errorf("%s: %+v, want cancelled", name, f)
				}
			}
			if f := r.Findings[1]; after > 0 && !strings.HasSuffix(f.Detail, "last: wrong-cert: scripted") {
				t.Errorf("%s: Detail = %q hides what was seen", name, f.Detail)
			}
		})
	}
}

// V-06: where nothing was configured to look at, a warning was logged and the
// deployment shown as a success.
func TestV06NoChecksIsNotVerified(t *testing.T) {
	for name, f := range map[string]func(context.Context, spec.Spec, Vars) Report{"Run": Run, "Once": Once, "Soak": Soak} {
		r := f(t.Context(), spec.Spec{}, Vars{})
		if r.Verified || !r.OK || r.State() != "not verified" {
			t.Errorf("%s without checks = %+v, state %q", name, r, r.State())
		}
	}
	if (Report{}).OK || (Report{}).State() != "failed" {
		t.Error("the zero Report looks good")
	}
}

func TestOnceLooksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := named("a", "b")
		s.Successes = 3
		p := newScript(map[string][]Kind{"a": {""}, "b": {Dial, ""}})
		r := once(t.Context(), s, Vars{}, p.probe)
		if r.OK || !r.Findings[0].OK || r.Findings[1].Kind != Dial || r.Took != 0 {
			t.Errorf("report %+v", r)
		}
	})
}

func TestBrokenCheckIsAFindingAndNoPanic(t *testing.T) {
	r := Once(t.Context(), spec.Spec{Checks: []spec.Check{{Type: "dns"}, {Type: spec.TLS, Addr: "x"}, {Type: spec.Exec}}}, Vars{})
	for _, f := range r.Findings {
		if f.Kind != Spec {
			t.Errorf("%+v, want kind spec", f)
		}
	}
}

func TestFindingIsOneLine(t *testing.T) {
	f := Finding{Check: "web", Type: spec.TLS, Target: "a:1", Kind: Exit, Detail: "x\ny"}
	if got, want := f.String(), `web (tls a:1): exit: x\ny`; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
	f = Finding{Check: "web", Type: spec.TLS, Target: "a:1", OK: true, Warning: "x\ny"}
	if got, want := f.String(), `web (tls a:1): ok; warning: x\ny`; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

func TestCleanEscapesWhatDoesNotPrint(t *testing.T) {
	for in, want := range map[string]string{
		"plain, ünïcode\n": "plain, ünïcode\n",
		"\x1b[2J\r\x00":    `\x1b[2J\r\x00`,
		"\xff\u202e\u0085": `\xff\u202e\u0085`,
		`back\slash`:       `back\slash`,
	} {
		if got := clean(in); got != want {
			t.Errorf("clean(%q) = %q, want %q", in, got, want)
		}
	}
}
