package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"deploytools/registry/wire"
)

// reporter is an agent, about one of its configurations. Agents that have one
// key are told apart by what each calls itself.
type reporter struct{ host, configuration, instance string }

func reporterOf(c Caller, configuration, instance string) reporter {
	return reporter{c.HostName(), configuration, instance}
}

// key returns the key in a group of records. A fingerprint is the only name of a
// host that can hold a slash, and never holds an underscore.
func (p reporter) key(prefix string) string {
	return hostKey(prefix, p.host) + p.configuration + "/" + cmp.Or(p.instance, noInstance)
}

// noInstance stands for an agent that does not say which one it is.
const noInstance = "-"

// hostKey returns the prefix of a host's keys in a group of records.
func hostKey(prefix, host string) string { return prefix + strings.ReplaceAll(host, "/", "_") + "/" }

// parseReporter reads what reporter.key puts behind the prefix.
func parseReporter(rest string) (reporter, error) {
	part := strings.Split(rest, "/")
	if len(part) != 3 || part[0] == "" {
		return reporter{}, errors.New("its key names no agent")
	}
	p := reporter{part[0], part[1], strings.TrimSuffix(part[2], noInstance)}
	if strings.Contains(p.host, ":") {
		p.host = strings.ReplaceAll(p.host, "_", "/")
	}
	return p, errors.Join(wire.CheckName(p.configuration), wire.CheckInstance(p.instance))
}

// reported is the last report of an agent, without its output.
type reported struct {
	wire.Report
	Fingerprint string
	Comment     string `json:",omitempty"` // of the key
	Received    time.Time
}

// Output is what the programs of a host's last deployment printed.
type Output struct {
	Deployment string `json:",omitempty"` // its ID
	Text       string
	Cut        bool `json:",omitzero"` // Text is only the end
	Received   time.Time
}

// maxReporters is how many agents with one name of a host are remembered, about
// each of their configurations. Another one takes the place of the one that has
// been silent longest: hosts of one key may come and go.
const maxReporters = 250

// Report takes what an agent tells, in place of what it told before. The same
// again costs no write. It is ErrDenied for who is no agent or has other
// configurations, and ErrNotFound for a configuration that never was.
func (r *Registry) Report(ctx context.Context, c Caller, told wire.Report) error {
	if c.Role != Agent {
		return fail(ErrDenied, "only agents report")
	}
	if err := c.CheckScope(told.Configuration); err != nil {
		return err
	}
	p := reporterOf(c, told.Configuration, told.Instance)
	known := false
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		tag, _, err := get[string](tx, p.key(prefixTold))
		known = tag == told.Tag
		return err
	})
	if err != nil || known {
		return err
	}
	out := Output{Text: told.Output, Cut: told.Cut, Received: r.now()}
	if told.Deployment != nil {
		out.Deployment = told.Deployment.ID
	}
	rep := reported{Report: told, Fingerprint: c.Fingerprint, Comment: c.String(), Received: out.Received}
	rep.Output, rep.Cut = "", false
	return r.o.Meta.Update(ctx, func(tx Tx) error {
		b, err := tx.Get(keyConfig(told.Configuration))
		if err == nil && b == nil {
			err = noConfiguration(told.Configuration)
		}
		if err == nil {
			err = errors.Join(makeRoom(tx, p), unnamed(tx, p, c.Fingerprint))
		}
		if err != nil {
			return err
		}
		return errors.Join(put(tx, p.key(prefixReport), rep), put(tx, p.key(prefixOutput), out), put(tx, p.key(prefixTold), told.Tag))
	})
}

// makeRoom forgets an agent if there are too many with the host's name and p is
// not one of them.
func makeRoom(tx Tx, p reporter) error {
	if b, err := tx.Get(p.key(prefixReport)); err != nil || b != nil {
		return err
	}
	n, oldest := 0, ""
	var since time.Time
	for key, b := range tx.Scan(hostKey(prefixReport, p.host)) {
		rep, err := decode[reported](key, b)
		if err != nil {
			return err
		}
		if n++; oldest == "" || rep.Received.Before(since) {
			oldest, since = key, rep.Received
		}
	}
	if n < maxReporters {
		return nil
	}
	return eraseReport(tx, strings.TrimPrefix(oldest, prefixReport))
}

// unnamed forgets what is known of an agent under the fingerprint of its key, now
// that it reports under the name which that was given since. What else has the key
// stays: it may be another host.
func unnamed(tx Tx, p reporter, fingerprint string) error {
	was := reporter{fingerprint, p.configuration, p.instance}
	if was == p || fingerprint == "" {
		return nil
	}
	rep, told, err := get[reported](tx, was.key(prefixReport))
	if err != nil {
		return err
	}
	known, _, err := get[sightings](tx, keySeen(was.host))
	if err != nil {
		return err
	}
	at, seen := known[was.String()]
	var gone []reporter
	if seen {
		gone = append(gone, was)
	}
	// When it had not yet said which one it is: what it said later stands for both,
	// as in fleet.list.
	anonymous := reporter{was.host, was.configuration, ""}
	if first, seen := known[anonymous.String()]; seen && anonymous != was && first <= max(at, rep.Received.Unix()) {
		gone = append(gone, anonymous)
	}
	if len(gone) > 0 {
		err = unsee(tx, was.host, gone)
	}
	if err != nil || !told {
		return err
	}
	return eraseReport(tx, was.key(""))
}

// eraseReport takes three writes. rest is the key behind the prefix.
func eraseReport(tx Tx, rest string) error {
	return errors.Join(tx.Delete(prefixReport+rest), tx.Delete(prefixOutput+rest), tx.Delete(prefixTold+rest))
}

// HookOutput returns what the programs of a host's last deployment of the
// configuration printed. With an instance it is that agent's; without one there
// must be one only.
func (r *Registry) HookOutput(ctx context.Context, c Caller, host, configuration, instance string) (Output, error) {
	var out Output
	if err := c.CheckScope(configuration); err != nil {
		return out, err
	}
	err := r.o.Meta.View(ctx, func(tx Tx) error {
		var found []string
		reported := func(host, configuration string) iter.Seq2[string, []byte] {
			return tx.Scan(hostKey(prefixReport, host) + configuration + "/")
		}
		for key := range reported(host, configuration) {
			if instance == "" || nameOf(key) == instance {
				found = append(found, nameOf(key))
			}
		}
		switch {
		case len(found) == 0:
			err := fail(ErrNotFound, "no agent of host %q has reported about configuration %q", host, configuration).hint("see 'hosts'")
			for range reported(configuration, host) {
				if c.CheckScope(host) == nil {
					return err.hint("see 'log %s %s': the host comes first", configuration, host)
				}
			}
			return err
		case len(found) > 1:
			return fail(ErrConflict, "%d agents of host %q have reported about configuration %q", len(found), host, configuration).
				hint("give -instance, one of: %s", strings.Join(found[:min(len(found), 10)], " "))
		}
		var err error
		out, _, err = get[Output](tx, reporter{host, configuration, strings.TrimSuffix(found[0], noInstance)}.key(prefixOutput))
		return err
	})
	return out, err
}

// Forget drops what is known of a host: all of it, or what is about one
// configuration, or about one instance. Of a caller with a scope only his
// configurations count. An agent that still runs is back with its next poll. It
// returns the change in words.
func (r *Registry) Forget(ctx context.Context, a Act, host, configuration, instance string) (string, error) {
	if configuration != "" {
		if err := a.Caller.CheckScope(configuration); err != nil {
			return "", err
		}
	}
	meant := func(p reporter) bool {
		return p.host == host && (configuration == "" || p.configuration == configuration) &&
			(instance == "" || p.instance == instance) && a.Caller.Configs.Holds(p.configuration)
	}
	for gone := false; ; gone = true {
		left := 0
		what, err := r.act(ctx, a, func(tx Tx) (done, error) {
			found, err := forgettable(tx, host, meant)
			if err == nil && len(found) == 0 && !gone {
				err = fail(ErrNotFound, "no such agent of host %q is known", host).hint("see 'hosts'")
			}
			if err != nil {
				return done{}, err
			}
			now := found[:min(len(found), forgetPerUpdate)]
			left = len(found) - len(now)
			did := done{name: host, what: fmt.Sprintf("forgot %d records of agents", len(found))}
			if left > 0 && !a.DryRun { // later steps would be like this one
				did.what = fmt.Sprintf("forgot %d of %d records of agents", len(now), len(found))
			}
			return did, errors.Join(forget(tx, now), unsee(tx, host, now))
		})
		if err != nil || left == 0 || a.DryRun {
			return what, err
		}
	}
}

// forgetPerUpdate keeps the writes of a step below MaxWrites: three for each, one
// for the sightings, and the record of the act.
const forgetPerUpdate = 30

// forgettable returns the agents that meant takes, by configuration and instance.
func forgettable(tx Tx, host string, meant func(reporter) bool) ([]reporter, error) {
	all := map[reporter]bool{}
	for key := range tx.Scan(hostKey(prefixReport, host)) {
		p, err := parseReporter(strings.TrimPrefix(key, prefixReport))
		if err != nil {
			return nil, fmt.Errorf("internal error: record %q: %w", key, err)
		}
		all[p] = true
	}
	err := eachSeen(tx, func(p reporter, _ time.Time) { all[p] = true })
	var found []reporter
	for p := range all {
		if meant(p) {
			found = append(found, p)
		}
	}
	slices.SortFunc(found, compareReporters)
	return found, err
}

func forget(tx Tx, all []reporter) error {
	for _, p := range all {
		if err := eraseReport(tx, p.key("")); err != nil {
			return err
		}
	}
	return nil
}

// report checks the record of a report.
func (i *inspection) report(rest string, value []byte) error {
	var rep reported
	if err := json.Unmarshal(value, &rep); err != nil {
		return err
	}
	p, err := parseReporter(rest)
	if err == nil && (rep.Configuration != p.configuration || rep.Instance != p.instance) {
		err = fmt.Errorf("it is about %q, by %q", rep.Configuration, rep.Instance)
	}
	return err
}

// ofReport checks what belongs to a report.
func ofReport[T any](i *inspection, rest string, value []byte) error {
	if !anyWith(i.tx, prefixReport+rest) {
		return errors.New("there is no such report")
	}
	return decodes[T](i, rest, value)
}
