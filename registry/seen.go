package registry

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
	"time"
)

// Sighting is that an agent was heard of.
type Sighting struct {
	Host          string // as Caller.HostName says
	Configuration string
	Instance      string
	At            time.Time
}

// sightings are the times, in seconds since 1970, by "HOST CONFIGURATION
// INSTANCE". Hosts are spread over some records, so that all sightings of a
// minute are one Update, of any number of hosts.
type sightings map[string]int64

const (
	shards       = 32
	maxSightings = 2500                // of a shard, so that its record stays below MaxValueBytes
	forgetAfter  = 90 * 24 * time.Hour // what only polled, and never reported
)

func keySeen(host string) string {
	h := fnv.New32a()
	h.Write([]byte(host))
	return fmt.Sprintf("%s%02x", prefixSeen, h.Sum32()%shards)
}

func (p reporter) String() string { return p.host + " " + p.configuration + " " + p.instance }

func compareReporters(a, b reporter) int {
	return cmp.Or(cmp.Compare(a.configuration, b.configuration), cmp.Compare(a.host, b.host), cmp.Compare(a.instance, b.instance))
}

// eachSeen calls fn for each agent that was heard of.
func eachSeen(tx Tx, fn func(reporter, time.Time)) error {
	for key, b := range tx.Scan(prefixSeen) {
		all, err := decode[sightings](key, b)
		if err != nil {
			return err
		}
		for name, at := range all {
			part := strings.Split(name, " ")
			if len(part) == 3 {
				fn(reporter{part[0], part[1], part[2]}, time.Unix(at, 0).UTC())
			}
		}
	}
	return nil
}

// Seen stores sightings, in one Update for all of them. Those that are older than
// what is known change nothing.
func (r *Registry) Seen(ctx context.Context, all []Sighting) error {
	by := map[string][]Sighting{}
	for _, s := range all {
		by[keySeen(s.Host)] = append(by[keySeen(s.Host)], s)
	}
	if len(by) == 0 {
		return nil
	}
	return r.o.Meta.Update(ctx, func(tx Tx) error {
		for key, some := range by {
			known, _, err := get[sightings](tx, key)
			if err != nil {
				return err
			}
			if known == nil {
				known = sightings{}
			}
			for _, s := range some {
				name := reporter{s.Host, s.Configuration, s.Instance}.String()
				known[name] = max(known[name], s.At.Unix())
				known.trim(s.Host+" ", maxReporters)
			}
			known.expire(r.now())
			known.trim("", maxSightings)
			if err := put(tx, key, known); err != nil {
				return err
			}
		}
		return nil
	})
}

// expire drops what is old.
func (s sightings) expire(now time.Time) {
	maps.DeleteFunc(s, func(_ string, at int64) bool { return at < now.Add(-forgetAfter).Unix() })
}

// trim drops the oldest of those that begin with prefix while there are more
// than limit.
func (s sightings) trim(prefix string, limit int) {
	var names []string
	for name := range s {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	if len(names) <= limit {
		return
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(s[a], s[b]) })
	for _, name := range names[:len(names)-limit] {
		delete(s, name)
	}
}

// unsee drops the sightings of these agents of one host.
func unsee(tx Tx, host string, all []reporter) error {
	known, ok, err := get[sightings](tx, keySeen(host))
	if err != nil || !ok {
		return err
	}
	for _, p := range all {
		delete(known, p.String())
	}
	return put(tx, keySeen(host), known)
}
