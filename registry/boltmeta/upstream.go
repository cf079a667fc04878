package boltmeta

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"deploytools/registry"
)

// ReadUpstream returns what the upstream file at path holds, and changes
// nothing.
func ReadUpstream(path string, o Options) (registry.Upstream, error) {
	b, up, err := openUpstream(path, o)
	if err != nil {
		return up, err
	}
	return up, b.Close()
}

// openUpstream opens the upstream file at path to read it, and reads it.
func openUpstream(path string, o Options) (b *bolt.DB, up registry.Upstream, err error) {
	err = guard(path, func(opened func(*os.File)) error {
		b, err = openBolt(path, bolt.Options{Timeout: o.timeout(), ReadOnly: true}, opened)
		if err != nil {
			return err
		}
		return b.View(func(tx *bolt.Tx) error { return readUpstream(tx, path, &up) })
	})
	if err != nil && b != nil {
		b.Close()
	}
	return b, up, err
}

// ErrNotUpstream says that a file needs no import.
var ErrNotUpstream = errors.New("file is not one of the archived deploy-registry, nothing was changed")

// readUpstream reads upstream's buckets:
//
//	components/NAME/byVersion/VERSION        a layer's record
//	components/NAME/byTime/TIME#VERSION      the same; TIME has seconds
//	configs/NAME/current                     a configuration
//	configs/NAME/TIME#DIGITS                 what it was
//	files/DIGEST                             who refers to it
func readUpstream(tx *bolt.Tx, path string, up *registry.Upstream) error {
	if err := recognise(tx, path); !errors.Is(err, ErrUpstream) {
		return cmp.Or(err, ErrNotUpstream)
	}
	r := reading{up: up, files: digestsOf(tx.Bucket([]byte("files")))}
	each(tx.Bucket([]byte("components")), r.component)
	each(tx.Bucket([]byte("configs")), r.configuration)
	slices.SortStableFunc(up.Versions, func(a, b registry.UpstreamVersion) int { return a.Ctime.Compare(b.Ctime) })
	return nil
}

// each calls fn with every bucket in b, which may be nil.
func each(b *bolt.Bucket, fn func(name string, b *bolt.Bucket)) {
	if b == nil {
		return
	}
	b.ForEachBucket(func(k []byte) error {
		fn(string(k), b.Bucket(k))
		return nil
	})
}

var errNoDigest = errors.New("it has no digest")

// reading reads the buckets of one upstream file.
type reading struct {
	up    *registry.Upstream
	files map[registry.LayerRef]string // the digest that files has for a version
}

func (r *reading) unreadable(format string, args ...any) {
	r.up.Unreadable = append(r.up.Unreadable, fmt.Sprintf(format, args...))
}

// digestsOf reads the bucket files the other way round.
func digestsOf(b *bolt.Bucket) map[registry.LayerRef]string {
	out := map[registry.LayerRef]string{}
	if b == nil {
		return out
	}
	b.ForEach(func(k, v []byte) error {
		var refs []registry.LayerRef
		json.Unmarshal(v, &refs) // a help where a version's own record lacks it
		for _, ref := range refs {
			out[ref] = string(k)
		}
		return nil
	})
	return out
}

// component reads the versions of one. Those of one second are in the order of
// their full times, where their records have one.
func (r *reading) component(name string, b *bolt.Bucket) {
	times := map[string]time.Time{}
	if byTime := b.Bucket([]byte("byTime")); byTime != nil {
		byTime.ForEach(func(k, _ []byte) error {
			text, version, _ := strings.Cut(string(k), "#")
			if t, err := time.Parse(time.RFC3339, text); err == nil {
				times[version] = t
			}
			return nil
		})
	}
	byVersion := b.Bucket([]byte("byVersion"))
	if byVersion == nil {
		return
	}
	byVersion.ForEach(func(k, v []byte) error {
		var record struct {
			Hash  string
			Ctime time.Time
		}
		version := string(k)
		if err := json.Unmarshal(v, &record); err != nil {
			r.unreadable("version %q of component %q: %v", version, name, err)
			return nil
		}
		out := registry.UpstreamVersion{Component: name, Version: version, Ctime: record.Ctime}
		if out.Ctime.IsZero() {
			out.Ctime = times[version]
		}
		hash := cmp.Or(record.Hash, r.files[registry.LayerRef{Component: name, Version: version}])
		if err := out.Hash.UnmarshalText([]byte(hash)); err != nil || out.Hash.IsZero() {
			err = cmp.Or(err, errNoDigest)
			r.unreadable("version %q of component %q: %v", version, name, err)
			return nil
		}
		r.up.Versions = append(r.up.Versions, out)
		return nil
	})
}

// configuration reads one with its history, which may or may not have the
// current state too.
func (r *reading) configuration(name string, b *bolt.Bucket) {
	out := registry.UpstreamConfiguration{Name: name, Deleted: true}
	var current []byte
	add := func(key string, v []byte) {
		state, err := decodeState(v)
		if err != nil {
			r.unreadable("configuration %q, record %q: %v", name, key, err)
			return
		}
		out.States = append(out.States, state)
	}
	b.ForEach(func(k, v []byte) error {
		if string(k) == "current" {
			current = v
		} else if v != nil {
			add(string(k), v)
		}
		return nil
	})
	slices.SortStableFunc(out.States, func(a, b state) int { return a.Mtime.Compare(b.Mtime) })
	if current != nil {
		add("current", current)
		out.Deleted = false
	}
	out.States = slices.CompactFunc(out.States, func(a, b state) bool { return a.Mtime.Equal(b.Mtime) && a.Hash == b.Hash })
	if len(out.States) > 0 {
		r.up.Configurations = append(r.up.Configurations, out)
	}
}

// state is a configuration as upstream stored it.
type state = registry.UpstreamState

func decodeState(b []byte) (s state, err error) {
	err = json.Unmarshal(b, &s)
	return s, err
}
