package swarm_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/keyturn/keyturn/internal/rotation"
	"github.com/keyturn/keyturn/internal/target/swarm"
)

// version is a version of the credential "db" with two fields.
func version(n int) rotation.Version {
	return rotation.Version{Credential: "db", Number: n,
		Public: map[string]string{"username": fmt.Sprintf("db_%d", n)},
		Objects: map[string]rotation.Object{
			"password": {ID: fmt.Sprintf("p%d", n), Name: fmt.Sprintf("db_password_v%d", n)},
			"dsn":      {ID: fmt.Sprintf("d%d", n), Name: fmt.Sprintf("db_dsn_v%d", n)},
		}}
}

// specJSON is a service's spec with the given variables and mounts ("id at
// target uid mode"), and fields that no client knows.
func specJSON(env []string, mounts ...string) string {
	var refs []map[string]any
	for _, m := range mounts {
		f := strings.Fields(m)
		names := map[byte]string{'p': "db_password_v", 'd': "db_dsn_v", 'x': "other"}
		var mode int
		_, _ = fmt.Sscanf(f[3], "%o", &mode)
		refs = append(refs, map[string]any{"SecretID": f[0], "SecretName": names[f[0][0]] + f[0][1:],
			"File": map[string]any{"Name": f[1], "UID": f[2], "GID": "0", "Mode": mode}})
	}
	data, err := json.Marshal(map[string]any{
		"Name": "app", "Labels": map[string]string{"team": "a"}, "NotInventedYet": map[string]int{"x": 1},
		"TaskTemplate": map[string]any{"ForceUpdate": 7, "Future": true, "ContainerSpec": map[string]any{
			"Image": "untagged", "Env": env, "Secrets": refs, "NewKnob": "on"}},
	})
	if err != nil {
		panic(err)
	}
	return string(data)
}

func placed(mounts rotation.Mounts) rotation.Placement {
	return rotation.Placement{Credential: "db", Service: "app", Mounts: mounts,
		File: map[string]string{"PW_FILE": "password"}, Path: map[string]string{"/etc/dsn": "dsn"}, Env: map[string]string{"DB_USER": "username"}}
}

// What a spec holds after each phase: the design's table, and what may be in the way.
func TestApply(t *testing.T) {
	uid, mode := "70", fs.FileMode(0o400)
	v1, v2, v3 := version(1), version(2), version(3)
	at1 := specJSON([]string{"A=1", "PW_FILE=/run/secrets/pw", "DB_USER=db_1", "Z=1"}, "x9 first 0 444", "p1 pw 5 440", "d1 /etc/dsn 0 444", "x8 last 0 444")
	at2 := specJSON([]string{"A=1", "PW_FILE=/run/secrets/pw", "DB_USER=db_2", "Z=1"}, "x9 first 0 444", "p2 pw 5 440", "d2 /etc/dsn 0 444", "x8 last 0 444")
	both := specJSON([]string{"A=1", "PW_FILE=/run/secrets/pw", "DB_USER=db_1", "Z=1", "PW_FILE_NEW=/run/secrets/pw_new", "DB_USER_NEW=db_2"},
		"x9 first 0 444", "p1 pw 5 440", "d1 /etc/dsn 0 444", "x8 last 0 444", "d2 /etc/dsn_new 0 444", "p2 pw_new 5 440")
	tightened := placed(rotation.Switch)
	tightened.UID, tightened.Mode = &uid, &mode
	tests := []struct {
		name   string
		spec   string
		shift  rotation.Shift
		before string // a spec; "" for none
		want   string
	}{
		{"switch", at1, rotation.Shift{Placement: placed(rotation.Switch), Main: v2}, at1, at2},
		{"switch again", at2, rotation.Shift{Placement: placed(rotation.Switch), Main: v2}, at1, at2},
		{"switch back", at2, rotation.Shift{Placement: placed(rotation.Switch), Main: v1}, at1, at1},
		{"switch without a snapshot", at1, rotation.Shift{Placement: placed(rotation.Switch), Main: v2}, "", at2},
		{"dual prepare", at1, rotation.Shift{Placement: placed(rotation.Dual), Main: v1, Beside: &v2}, at1, both},
		{"dual prepare again", both, rotation.Shift{Placement: placed(rotation.Dual), Main: v1, Beside: &v2}, at1, both},
		{"dual cutover", both, rotation.Shift{Placement: placed(rotation.Dual), Main: v2}, at1, at2},
		{"dual prepare undone", both, rotation.Shift{Placement: placed(rotation.Dual), Main: v1}, at1, at1},
		{"another version beside", both, rotation.Shift{Placement: placed(rotation.Dual), Main: v1, Beside: &v3}, at1,
			strings.NewReplacer("db_2", "db_3", "p2", "p3", "d2", "d3", "_v2", "_v3").Replace(both)},
		{"switched to switch in the middle", both, rotation.Shift{Placement: placed(rotation.Switch), Main: v2}, at1,
			strings.Replace(at2, `"Z=1"`, `"Z=1","DB_USER_NEW=db_2"`, 1)}, // a plain variable of that name may be theirs
		{"nothing there yet", specJSON([]string{"A=1"}), rotation.Shift{Placement: placed(rotation.Switch), Main: v2}, specJSON([]string{"A=1"}),
			specJSON([]string{"A=1", "PW_FILE=/run/secrets/db_password", "DB_USER=db_2"}, "d2 /etc/dsn 0 444", "p2 db_password 0 444")},
		{"tightened", at1, rotation.Shift{Placement: tightened, Main: v2}, at1,
			specJSON([]string{"A=1", "PW_FILE=/run/secrets/pw", "DB_USER=db_2", "Z=1"}, "x9 first 0 444", "p2 pw 70 400", "d2 /etc/dsn 70 400", "x8 last 0 444")},
		{"tightened, and back", specJSON([]string{"PW_FILE=/run/secrets/pw", "DB_USER=db_2"}, "p2 pw 70 400", "d2 /etc/dsn 70 400"),
			rotation.Shift{Placement: tightened, Main: v1}, at1,
			specJSON([]string{"PW_FILE=/run/secrets/pw", "DB_USER=db_1"}, "p1 pw 5 440", "d1 /etc/dsn 0 444")},
		{"stripped by a deployment", specJSON([]string{"A=2"}, "x9 first 0 444"), rotation.Shift{Placement: placed(rotation.Switch), Main: v2}, at1,
			specJSON([]string{"A=2", "PW_FILE=/run/secrets/pw", "DB_USER=db_2"}, "x9 first 0 444", "d2 /etc/dsn 0 444", "p2 pw 5 440")},
		{"also mounted where nobody declared it", specJSON([]string{"PW_FILE=/run/secrets/pw", "DB_USER=db_1"}, "p1 pw 0 444", "d1 /etc/dsn 0 444", "p1 sidecar 3 400"),
			rotation.Shift{Placement: placed(rotation.Switch), Main: v2}, at1,
			specJSON([]string{"PW_FILE=/run/secrets/pw", "DB_USER=db_2"}, "p2 pw 0 444", "d2 /etc/dsn 0 444", "p2 sidecar 3 400")},
		{"cutover that added a mount, and back", at2, rotation.Shift{Placement: placed(rotation.Switch), Main: v1}, specJSON([]string{"A=1", "PW_FILE=/run/secrets/pw", "Z=1"}, "p1 pw 5 440"),
			specJSON([]string{"A=1", "PW_FILE=/run/secrets/pw", "Z=1"}, "x9 first 0 444", "p1 pw 5 440", "x8 last 0 444")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.shift.Known = []rotation.Version{v1, v2, v3}
			if tt.before != "" {
				before, err := swarm.Before(json.RawMessage(tt.before), tt.shift.Placement)
				if err != nil {
					t.Fatal(err)
				}
				tt.shift.Before = before
			}
			got, err := swarm.Apply(json.RawMessage(tt.spec), []rotation.Shift{tt.shift})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(parsed(t, tt.want), parsed(t, string(got))); diff != "" {
				t.Errorf("Apply (-want +got):\n%s", diff)
			}
			again, err := swarm.Apply(got, []rotation.Shift{tt.shift})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(parsed(t, string(got)), parsed(t, string(again))); diff != "" {
				t.Errorf("Apply on its own result (-once +twice):\n%s", diff)
			}
		})
	}
}

func parsed(t *testing.T, s string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// docker stack deploy sorts the secrets of a service by their names: a move in a
// stack keeps that order, and so does the way back.
func TestApplyKeepsTheOrderOfAStack(t *testing.T) {
	v1, v2 := version(1), version(2)
	v1.Objects = map[string]rotation.Object{"password": {ID: "p1", Name: "db"}}
	v2.Objects = map[string]rotation.Object{"password": {ID: "p2", Name: "db_v2"}}
	place := rotation.Placement{Credential: "db", Service: "app", Path: map[string]string{"/run/secrets/pw": "password"}}
	spec := func(label string, names ...string) string {
		var refs []string
		for _, n := range names {
			id, target := map[string]string{"db": "p1", "db_v2": "p2"}[n], "pw"
			if id == "" {
				id, target = "x1", "ro"
			}
			refs = append(refs, fmt.Sprintf(`{"SecretID":%q,"SecretName":%q,"File":{"Name":%q,"UID":"0","GID":"0","Mode":292}}`, id, n, target))
		}
		return fmt.Sprintf(`{"Name":"app","Labels":{%q:"orders"},"TaskTemplate":{"ContainerSpec":{"Secrets":[%s]}}}`, label, strings.Join(refs, ","))
	}
	const stacked = "com.docker.stack.namespace"
	for _, tt := range []struct {
		name, spec, want string
		main             rotation.Version
	}{
		{"in a stack", spec(stacked, "db", "db_ro"), spec(stacked, "db_ro", "db_v2"), v2},
		{"back in a stack", spec(stacked, "db_ro", "db_v2"), spec(stacked, "db", "db_ro"), v1},
		{"in a stack with an order of its own", spec(stacked, "db_ro", "db"), spec(stacked, "db_ro", "db_v2"), v2},
		{"in none", spec("team", "db", "db_ro"), spec("team", "db_v2", "db_ro"), v2},
	} {
		got, err := swarm.Apply(json.RawMessage(tt.spec), []rotation.Shift{{Placement: place, Main: tt.main, Known: []rotation.Version{v1, v2}}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(parsed(t, tt.want), parsed(t, string(got))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestApplyRefuses(t *testing.T) {
	v2 := version(2)
	for _, tt := range []struct {
		name  string
		spec  string
		place rotation.Placement
		class rotation.Class
		want  string
	}{
		{"a strange secret at the path", specJSON([]string{"PW_FILE=/run/secrets/pw"}, "x9 pw 0 444"), placed(rotation.Switch), rotation.Refused, `would both be mounted at "/run/secrets/pw"`},
		{"two fields at one path", specJSON([]string{"PW_FILE=/etc/dsn"}), placed(rotation.Switch), rotation.Invalid, "give each"},
		{"no path", specJSON([]string{"PW_FILE=canary"}), placed(rotation.Switch), rotation.Invalid, `the variable "PW_FILE"`},
		{"two variables with one value", specJSON([]string{"A=/canary", "B=/canary"}), rotation.Placement{Service: "app", File: map[string]string{"A": "password", "B": "dsn"}},
			rotation.Invalid, "give each"},
		{"a value for a path, and no such field", specJSON([]string{"A=/canary"}), rotation.Placement{Service: "app", File: map[string]string{"A": "token"}},
			rotation.Invalid, `no secret for field "token"`},
		{"no such field", specJSON(nil), rotation.Placement{Service: "app", Path: map[string]string{"/x": "token"}}, rotation.Invalid, `no secret for field "token"`},
		{"no such public field", specJSON(nil), rotation.Placement{Service: "app", Env: map[string]string{"X": "host"}}, rotation.Invalid, `no public field "host"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := swarm.Apply(json.RawMessage(tt.spec), []rotation.Shift{{Placement: tt.place, Main: v2}})
			if err == nil || rotation.ClassOf(err) != tt.class || !strings.Contains(err.Error()+rotation.HintOf(err), tt.want) {
				t.Errorf("Apply = %v (class %d), want %q in class %d", err, rotation.ClassOf(err), tt.want, tt.class)
			}
			// What stands in a variable may be a value, and errors go into the journal.
			if strings.Contains(fmt.Sprint(err)+rotation.HintOf(err), "canary") {
				t.Errorf("Apply = %v, want nothing of what stands in a variable", err)
			}
		})
	}
}

// A variable that should hold a path may hold the value itself, which may look
// like one: no snapshot has it, for the snapshot goes into the journal.
func TestSnapshotHoldsNoValue(t *testing.T) {
	for _, value := range []string{"canary-1", "/canary-2"} {
		got, err := swarm.Before(json.RawMessage(specJSON([]string{"PW_FILE=" + value, "OTHER=canary", "DB_USER=db_1"}, "p1 pw 0 444")), placed(rotation.Switch))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(got), "canary") || !strings.Contains(string(got), "db_1") {
			t.Errorf("snapshot = %s, want nothing of what is not ours", got)
		}
	}
}

// A variable that was there before, with something else than the path of a
// secret, is not taken away on the way back; what somebody else put where our
// mount was stays as well.
func TestApplyBackLeavesOthersAlone(t *testing.T) {
	was := specJSON([]string{"PW_FILE=/etc/pw"}, "d1 /etc/dsn 0 444")
	for name, tt := range map[string]struct{ spec, want string }{
		"a variable":   {specJSON([]string{"PW_FILE=/etc/pw"}, "d2 /etc/dsn 0 444", "p2 /etc/pw 0 444"), was},
		"another path": {specJSON([]string{"PW_FILE=words"}, "d2 /etc/dsn 0 444"), specJSON([]string{"PW_FILE=words"}, "d1 /etc/dsn 0 444")},
		"a secret":     {specJSON([]string{"PW_FILE=/etc/pw"}, "x9 /etc/dsn 0 444"), specJSON([]string{"PW_FILE=/etc/pw"}, "x9 /etc/dsn 0 444")},
	} {
		place := placed(rotation.Switch)
		place.Env = nil
		before, err := swarm.Before(json.RawMessage(was), place)
		if err != nil {
			t.Fatal(err)
		}
		got, err := swarm.Apply(json.RawMessage(tt.spec), []rotation.Shift{{Placement: place, Main: version(1), Known: []rotation.Version{version(1), version(2)}, Before: before}})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(parsed(t, tt.want), parsed(t, string(got))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
