package config

import (
	"errors"
	"os/user"
	"testing"
)

// withGroups is minimal with what control has.
func withGroups(keys string) map[string]string {
	return map[string]string{"a.yaml": minimal + "control: {" + keys + "}\n"}
}

func TestGroups(t *testing.T) {
	for _, c := range []struct {
		keys, says string
		act, read  *Group
	}{
		{"group: ikepulse, read_group: monitor", "", &Group{"ikepulse", 990}, &Group{"monitor", 991}},
		{"read_group: monitor", "", nil, &Group{"monitor", 991}},
		{"group: 0, read_group: 4294967294", "", &Group{"0", 0}, &Group{"4294967294", 4294967294}},
		{"group: monitors", `control.group: no group "monitors" on this host; create it, or give the number of one that is not in /etc/group`, nil, nil},
		{"read_group: 4294967295", `control.read_group: "4294967295" is not the number of a group`, nil, nil}, // chown takes it for none
		{"read_group: 4294967296", `control.read_group: "4294967296" is not the number of a group`, nil, nil},
		{"read_group: 99999999999999999999", `control.read_group: no group "99999999999999999999" on this host; create it, or give the number of one that is not in /etc/group`, nil, nil},
		{"read_group: ikepulse, group: 990", "control.read_group: the same as control.group, whose members may act already; name another or leave the key out", nil, nil},
	} {
		write(t, withGroups(c.keys))
		cfg, ps := Load("a.yaml", checks)
		switch {
		case c.says != "" && (len(ps) != 1 || ps[0].Key+": "+ps[0].Text != c.says):
			t.Errorf("%s: %s", c.keys, ps.Error())
		case c.says != "":
		case ps != nil:
			t.Errorf("%s: %s", c.keys, ps.Error())
		case !sameGroup(cfg.Control.Group, c.act) || !sameGroup(cfg.Control.ReadGroup, c.read):
			t.Errorf("%s: %+v and %+v", c.keys, cfg.Control.Group, cfg.Control.ReadGroup)
		}
	}
}

func sameGroup(a, b *Group) bool { return a == b || a != nil && b != nil && *a == *b }

// TestGroupsThatCannotBeRead: what cannot be known is no fault of the file's,
// unless it is to be run.
func TestGroupsThatCannotBeRead(t *testing.T) {
	blind := checks
	blind.Group = func(string) (*user.Group, error) { return nil, errors.New("open /etc/group: permission denied") }
	write(t, withGroups("read_group: monitor"))
	const text = "this host's groups cannot be read: open /etc/group: permission denied"
	if _, ps := Load("a.yaml", blind); len(ps) != 1 || ps[0].Key != "control.read_group" || ps[0].Text != text {
		t.Errorf("Load: %s", ps.Error())
	}
	cfg, ps := Check("a.yaml", blind)
	if ps != nil {
		t.Fatal(ps.Error())
	}
	if n := cfg.Notes; len(n) != 1 || n[0].Key != "control.read_group" || n[0].Text != text {
		t.Errorf("Check: %s", n.Error())
	}
}
