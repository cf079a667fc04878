package registry_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"deploytools/registry"
)

var bob = registry.Caller{User: "bob", Role: registry.Publisher, Fingerprint: "SHA256:bob"}

// TestQuotas: what is complete, cut off or on its way counts, whoever looks.
func TestQuotas(t *testing.T) {
	operator, total := registry.Quota{Operator: 10}, registry.Quota{Total: 10}
	hold := func(state string) func(*testing.T, *registry.Registry, registry.Caller) {
		return func(t *testing.T, r *registry.Registry, c registry.Caller) {
			in, err := r.Receive(t.Context(), c, "/held")
			if err != nil {
				t.Fatal(err)
			}
			write(t, in, "1234567", 0)
			switch state {
			case "complete":
				finish(t, in)
			case "cut off":
				suspend(t, in)
			case "set only":
				truncate(t, in, 0)
				truncate(t, in, 7)
			}
		}
	}
	for _, state := range []string{"complete", "cut off", "receiving", "set only"} {
		for name, test := range map[string]struct {
			quota registry.Quota
			other registry.Caller
			fits  int64
		}{
			"one's own":                   {operator, caller, 3},
			"another's, for one operator": {operator, bob, 10},
			"another's, in total":         {total, bob, 3},
			"one's own, in total":         {total, caller, 3},
		} {
			t.Run(name+", "+state, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					o := w.options()
					o.Quota = test.quota
					r := start(t, o)
					hold(state)(t, r, test.other)
					in := receive(t, r, "/x", strings.Repeat("x", int(test.fits)))
					truncate(t, in, 1) // gives back
					write(t, in, strings.Repeat("x", int(test.fits-1)), 1)
					write(t, in, "y", 0) // takes nothing more
					if room, err := r.Room(t.Context(), caller); err != nil || room.Free != 0 {
						t.Errorf("Room() = %+v, %v, want none free", room, err)
					}
					_, err := in.WriteAt([]byte("z"), test.fits)
					wantKind(t, "one byte more", err, registry.ErrRefused)
					if err == nil || !strings.Contains(err.Error(), "more than 10 bytes") {
						t.Errorf("WriteAt = %v, want the limit", err)
					}
					if err := in.Abort(t.Context()); err != nil {
						t.Fatal(err)
					}
					// Its room is free again.
					finish(t, receive(t, r, "/y", strings.Repeat("x", int(test.fits))))
				})
			})
		}
	}
}

func TestQuotaOfWhatGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Quota.Operator = 10
		r := start(t, o)
		in := receive(t, r, "/x", "1234567")
		suspend(t, in)
		in = resume(t, r, in.ID())
		write(t, in, "890", 7) // what is there is not counted twice
		_, err := in.WriteAt([]byte("1"), 10)
		wantKind(t, "one byte more", err, registry.ErrRefused)
	})
}

func TestAPartThatHasNoRoomStaysAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		in := receive(t, w.open(t), "/x", "1234567")
		suspend(t, in)
		o := w.options()
		o.Quota.Operator = 5
		_, err := start(t, o).Resume(t.Context(), caller, in.ID())
		wantKind(t, "Resume with less room than the part takes", err, registry.ErrRefused)
		in = resume(t, w.open(t), in.ID())
		if in.Size() != 7 {
			t.Errorf("Size() = %d, want the 7 bytes from before", in.Size())
		}
		finish(t, in)
	})
}

// TestQuotaAtOnce: many that write at once get all there is, and no byte more.
func TestQuotaAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Quota.Total = 1000
		r := start(t, o)
		var stored atomic.Int64
		var wg sync.WaitGroup
		for range 20 {
			in, err := r.Receive(t.Context(), caller, "/x")
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				for off := int64(0); ; off++ {
					if _, err := in.WriteAt([]byte("x"), off); err != nil {
						return // and keeps what it has until all have ended
					}
					stored.Add(1)
				}
			})
		}
		wg.Wait()
		if stored.Load() != 1000 {
			t.Errorf("%d bytes were stored, want 1000", stored.Load())
		}
	})
}

func TestEntriesAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		o.Quota.Entries = 3
		r := start(t, o)
		if err := r.MakeDir(t.Context(), caller, "/d"); err != nil {
			t.Fatal(err)
		}
		suspend(t, receive(t, r, "/x", "half"))
		putAt(t, r, "/y", "x")
		_, err := r.Receive(t.Context(), caller, "/z")
		wantKind(t, "a fourth upload", err, registry.ErrRefused)
		wantKind(t, "a fourth directory", r.MakeDir(t.Context(), caller, "/e"), registry.ErrRefused)
		if _, err := r.Receive(t.Context(), bob, "/z"); err != nil {
			t.Errorf("another key's upload = %v", err)
		}
		all, err := r.Uploads(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		resume(t, r, all[0].ID) // is no entry more
	})
}

// countingFree counts the looks at the free space.
type countingFree struct {
	registry.Spool
	looks *int
}

func (f countingFree) Free(ctx context.Context) (int64, error) {
	*f.looks++
	return f.Spool.Free(ctx)
}

// TestSpaceIsLookedAt at the first byte of each upload, and again and again
// while bytes come in, over whatever uploads they are spread.
func TestSpaceIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		o := w.options()
		looks := 0
		o.Spool = countingFree{o.Spool, &looks}
		r := start(t, o)
		piece := strings.Repeat("x", 1<<20)
		for range 4 {
			in := receive(t, r, "/x", "")
			for i := range int64(20) {
				write(t, in, piece, i<<20)
			}
			defer in.Abort(t.Context())
		}
		if looks < 4+3 || looks > 4+6 {
			t.Errorf("%d looks at 80 MiB in 4 uploads, want one for each and one every 16 MiB", looks)
		}
	})
}
