package cmd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	bolt "go.etcd.io/bbolt"

	"deploytools/layers/digest"
)

// upstreamdbCommand is
//
//	upstreamdb DIR COMPONENT:VERSION=FILE...
//
// and makes DIR as the archived registry left it: the versions, uploaded within
// one second in this order, and a configuration "web" that had each of them, the
// last one now.
func upstreamdbCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: upstreamdb DIR COMPONENT:VERSION=FILE...")
	}
	var versions []upstreamVersion
	for _, arg := range args[1:] {
		name, file, _ := strings.Cut(arg, "=")
		component, version, _ := strings.Cut(name, ":")
		versions = append(versions, upstreamVersion{component, version, ts.ReadFile(file)})
	}
	ts.Check(makeUpstream(ts.MkAbs(args[0]), versions))
}

type upstreamVersion struct{ component, version, content string }

func makeUpstream(dir string, versions []upstreamVersion) error {
	if err := os.MkdirAll(filepath.Join(dir, "files"), 0o700); err != nil {
		return err
	}
	b, err := bolt.Open(filepath.Join(dir, "state.db"), 0o600, nil)
	if err != nil {
		return err
	}
	err = b.Update(func(tx *bolt.Tx) error {
		for i, v := range versions {
			if err := (upstreamdb{tx}).add(dir, i, v); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, b.Close())
}

// add adds the ith version, and makes it the layer of web.
func (u upstreamdb) add(dir string, i int, v upstreamVersion) error {
	hash := digest.Of([]byte(v.content)).String()
	if err := os.WriteFile(filepath.Join(dir, "files", hash), []byte(v.content), 0o600); err != nil {
		return err
	}
	start := time.Date(2017, 3, 1, 11, 28, 18, 0, time.UTC)
	added, changed := start.Add(time.Duration(i+1)*time.Millisecond), start.Add(time.Duration(i+1)*time.Minute)
	layer := map[string]any{"Name": v.component, "Version": v.version, "File": "files/" + hash, "Hash": hash, "Ctime": added}
	state := map[string]any{"Name": "web", "Mtime": changed, "Hash": digest.Of([]byte(hash + "\n")), "Layers": []any{layer}}
	return u.put(
		upstreamRecord{"components/" + v.component + "/byVersion/" + v.version, layer},
		upstreamRecord{"components/" + v.component + "/byTime/" + added.Format(time.RFC3339) + "#" + v.version, layer},
		upstreamRecord{"configs/web/" + changed.Format(time.RFC3339) + "#" + hash[:5], state},
		upstreamRecord{"configs/web/current", state},
		upstreamRecord{"files/" + hash, []any{map[string]string{"Component": v.component, "Version": v.version}}},
	)
}

type upstreamdb struct{ tx *bolt.Tx }

type upstreamRecord struct {
	path  string // buckets, and a key
	value any
}

func (u upstreamdb) put(records ...upstreamRecord) error {
	for _, r := range records {
		parts := strings.Split(r.path, "/")
		bucket, err := u.tx.CreateBucketIfNotExists([]byte(parts[0]))
		for _, name := range parts[1 : len(parts)-1] {
			if err == nil {
				bucket, err = bucket.CreateBucketIfNotExists([]byte(name))
			}
		}
		if err != nil {
			return err
		}
		text, err := json.Marshal(r.value)
		if err == nil {
			err = bucket.Put([]byte(parts[len(parts)-1]), text)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.path, err)
		}
	}
	return nil
}
