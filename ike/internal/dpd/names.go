package dpd

func (m Mode) String() string {
	return [...]string{"idle", "on-demand", "periodic", "off"}[m]
}

func (a Action) String() string {
	return [...]string{"wait", "probe", "dead"}[a]
}

func (r Reason) String() string {
	return [...]string{"alive", "off", "in_progress", "nothing_sent", "idle", "unauthenticated", "periodic",
		"max_suppress", "unanswered", "elsewhere", "too_soon"}[r]
}
