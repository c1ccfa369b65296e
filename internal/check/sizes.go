package check

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"

	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/internal/flags"
)

// inspectSizes reports limits that do not fit into each other, or into the memory and descriptors of the machine.
func inspectSizes(c *app.HubConfig, report finding.Report) {
	size := func(n int64) string { return humanize.IBytes(uint64(n)) }
	payload, queue, total := int64(c.MaxPayload.T), int64(c.QueueBytes.T), int64(c.QueueTotalBytes.T)
	if payload > queue {
		report.Warn("config-queue", "--queue-bytes of "+size(2*payload)+" or more", "a message of --max-payload (%s) does not fit into --queue-bytes (%s), and may end the streams that it is for", size(payload), size(queue))
	}
	if queue > total {
		report.Warn("config-queue", "--queue-total-bytes above --queue-bytes", "--queue-bytes (%s) is more than --queue-total-bytes (%s) has for all streams together", size(queue), size(total))
	}
	streams, _ := app.DescriptorBudget()
	wanted := c.MaxClients.T
	switch {
	case wanted > streams && streams > 0:
		report.Warn("config-descriptors", fmt.Sprintf("ulimit -n %d, LimitNOFILE= or ulimits: nofile", int64(wanted-streams)+int64(app.DescriptorLimit())), "--max-clients %d, and %d descriptors, as here, are enough for %d streams", wanted, app.DescriptorLimit(), streams)
	case wanted == flags.Auto && streams > 0:
		report.OK("config-descriptors", "room for %d streams: the descriptor limit is %d here", streams, app.DescriptorLimit())
		wanted = streams
	}
	limit := memoryLimit()
	if limit == 0 {
		return
	}
	idle, full := c.MemoryBound(0), c.MemoryBound(max(wanted, 0))
	do := "--queue-total-bytes and --history-bytes to a third of it together, or more memory"
	switch {
	case idle > limit:
		report.Warn("config-memory", do, "the hub may take %s with slow readers, and there are %s", size(idle), size(limit))
	case full > limit:
		report.Note("config-memory", do+", or --max-clients", "the hub may take %s with %d streams and slow readers, and there are %s", size(full), wanted, size(limit))
	}
}

// memoryLimit is how much memory the process may have: its control group's limit, or the
// machine's; 0: not known.
func memoryLimit() int64 {
	var limit int64
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil { // "max" is none
			limit = n
		}
	}
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return limit
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "MemTotal:" {
			if kib, err := strconv.ParseInt(f[1], 10, 64); err == nil && (limit == 0 || kib<<10 < limit) {
				limit = kib << 10
			}
		}
	}
	return limit
}
