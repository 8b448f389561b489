// The load: WebSocket subscribers that count what they get, and publishers that send prepared requests.
//
//   load PORT [OPTION VALUE]...
//
//   subscribers N       how many connect (0)
//   path PATH           of the WebSocket (/)
//   steps STEPS         after the handshake, each followed by ";": "?" waits for a frame, "tTEXT" sends a text
//                       frame
//   requests FILE       what publishers send: a length of 4 bytes (little-endian), then as many bytes, and so on;
//                       the message in the n-th, from 0 on, holds "@" and n in 9 digits, and no other "@"
//
// Once everybody is subscribed it prints "ready". Then each line of the standard input is a run:
//
//   wait SECONDS PUBLISHERS      each publisher sends its next request when the last is answered
//   burst ROUNDS PUBLISHERS      each sends one request at the same time; the next round begins when all is
//                                answered and delivered
//   pace SECONDS RATE            so many requests a second over one connection, answered or not
//   count N PUBLISHERS           like wait, but so many requests
//
// It ends when every message has reached every subscriber, or when that takes too long,
// and is answered with a line of JSON. The next run goes on with the next request. The program ends with its standard input.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BUFFER_BYTES = 1 << 20,
    DIGITS = 9,
    MARK_BYTES = 1 + DIGITS,
    HEAD_BYTES = 4096,
    MAX_PUBLISHERS = 256,
    BUCKETS = 1 << 20,  // of 10 microseconds each
    GIVE_UP_S = 30,       // with nothing happening
    MAX_RUN_S = 60,
};

struct subscriber {
    int fd;
    char mark[MARK_BYTES];  // a mark that the end of the last read has cut
    size_t mark_length;
};

struct publisher {
    int fd;
    int is_waiting;         // for an answer
    size_t number;          // of the request that it waits for
    double due_at;          // that request
    char answer[HEAD_BYTES];  // as far as it has come
    size_t answer_length;
};

static struct subscriber *subscribers;
static size_t subscriber_count;
static struct publisher publishers[MAX_PUBLISHERS];
static size_t publisher_count;
static int port;
static const char *path = "/", *steps = "";

static char **requests;
static uint32_t *request_lengths;
static double *request_sent_at;
static size_t request_count, next_request;

static char buffer[BUFFER_BYTES];
static int poller, publishing_poller;

// Of the current run.
static uint64_t deliveries;
static size_t published, answered;
static uint32_t buckets[BUCKETS];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (%s)\n", strerror(errno));
    exit(1);
}

static void note(double seconds) {
    size_t bucket = seconds < 0 ? 0 : (size_t)(seconds * 1e5);
    buckets[bucket < BUCKETS ? bucket : BUCKETS - 1]++;
}

static double quantile_ms(double q) {
    uint64_t total = 0, seen = 0;
    for (size_t i = 0; i < BUCKETS; i++) total += buckets[i];
    for (size_t i = 0; i < BUCKETS; i++) {
        seen += buckets[i];
        if (total > 0 && (double)seen >= q * (double)total) return ((double)i + 0.5) / 100;
    }
    return 0;
}

static int dial(int to) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;
    if (fd < 0) die("socket");
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)to), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) die("connect to port %d", to);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

static void send_all(int fd, const char *data, size_t length) {
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent < 0) die("send");
        data += sent;
        length -= (size_t)sent;
    }
}

static void send_text(int fd, const char *data, size_t length) {
    char frame[HEAD_BYTES];
    if (length > 125) die("a frame of %zu bytes; at most 125 can be sent", length);
    size_t head = 2;
    frame[0] = (char)0x81;
    frame[1] = (char)(0x80 | length);
    memset(frame + head, 0, 4);  // a mask of zeros
    memcpy(frame + head + 4, data, length);
    send_all(fd, frame, head + 4 + length);
}

static size_t receive_more(int fd, char *data, size_t length) {
    ssize_t got = recv(fd, data + length, HEAD_BYTES - length, 0);
    if (got <= 0) die("the server closed a connection after: %.*s", (int)length, data);
    return length + (size_t)got;
}

// The length of the frame at the beginning of the data, 0 if it isn't all there.
static size_t frame_length(const unsigned char *data, size_t length) {
    if (length < 2) return 0;
    size_t size = (data[1] & 127u) + 2u;
    if ((data[1] & 127) == 126) size = length < 4 ? length + 1 : 4u + ((size_t)data[2] << 8) + data[3];
    return size <= length ? size : 0;
}

static void subscribe(struct subscriber *s) {
    char data[HEAD_BYTES], *end;
    size_t length = 0, used;
    s->fd = dial(port);
    int written = snprintf(
        data, sizeof data,
        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, port);
    send_all(s->fd, data, (size_t)written);
    while ((end = memmem(data, length, "\r\n\r\n", 4)) == NULL) length = receive_more(s->fd, data, length);
    if (strncmp(data, "HTTP/1.1 101", 12) != 0) die("no handshake: %.*s", (int)length, data);
    length -= used = (size_t)(end - data) + 4;
    memmove(data, data + used, length);
    for (const char *step = steps, *next; *step != '\0'; step = next + 1) {
        next = strchr(step, ';');
        if (*step == 't') send_text(s->fd, step + 1, (size_t)(next - step) - 1);
        if (*step != '?') continue;
        while ((used = frame_length((unsigned char *)data, length)) == 0) length = receive_more(s->fd, data, length);
        length -= used;
        memmove(data, data + used, length);
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)(s - subscribers)};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &event) < 0) die("epoll_ctl");
}

// "@" and what follows; what follows is something else if the "@" is a byte of a frame's length.
static void look_at(const char *mark, double at) {
    const char *digits = mark + 1;
    size_t number = 0;
    if (digits[0] != '0') return;
    for (int i = 0; i < DIGITS; i++) number = 10 * number + (size_t)(digits[i] - '0');
    if (number >= request_count) die("a message that nobody sent: %.9s", digits);
    deliveries++;
    note(at - request_sent_at[number]);
}

static void receive(struct subscriber *s) {
    ssize_t got = recv(s->fd, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) die("the server closed a subscriber's connection");
    double at = now();
    const char *data = buffer, *end = buffer + got;
    if (s->mark_length > 0) {
        size_t more = MARK_BYTES - s->mark_length;
        if (more > (size_t)got) more = (size_t)got;
        memcpy(s->mark + s->mark_length, data, more);
        s->mark_length += more;
        data += more;
        if (s->mark_length < MARK_BYTES) return;
        look_at(s->mark, at);
        s->mark_length = 0;
    }
    while ((data = memchr(data, '@', (size_t)(end - data))) != NULL) {
        if (end - data < MARK_BYTES) {
            s->mark_length = (size_t)(end - data);
            memcpy(s->mark, data, s->mark_length);
            return;
        }
        look_at(data++, at);
    }
}

static int publish_next(struct publisher *p) {
    if (next_request == request_count) return 0;
    size_t number = p->number = next_request++;
    p->is_waiting = 1;
    p->answer_length = 0;
    request_sent_at[number] = p->due_at = now();
    send_all(p->fd, requests[number], request_lengths[number]);
    published++;
    return 1;
}

// Whether a whole HTTP response is there.
static int is_whole(const char *data, size_t length) {
    const char *end = memmem(data, length, "\r\n\r\n", 4);
    if (end == NULL) return 0;
    if (length > 9 && data[9] != '2' && (subscriber_count > 0 || memcmp(data + 9, "503", 3) != 0)) die("the server refused: %.*s", (int)length, data);
    size_t body = 0;
    for (const char *line = data; line < end; line += 2) {
        if (strncasecmp(line, "content-length:", 15) == 0) body = strtoul(line + 15, NULL, 10);
        line = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
    }
    return (size_t)(end - data) + 4 + body <= length;
}

// Whether what was awaited has now been answered.
static int receive_answer(struct publisher *p) {
    ssize_t got = recv(p->fd, p->answer + p->answer_length, HEAD_BYTES - p->answer_length, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) die("the server closed a publisher's connection");
    p->answer_length += (size_t)got;
    if (!is_whole(p->answer, p->answer_length)) return 0;
    if (p->answer[9] != '2') {  // 503: the same again after the second that the server asks for, as Tambur's publisher does
        sleep(1);
        p->answer_length = 0;
        send_all(p->fd, requests[p->number], request_lengths[p->number]);
        return 0;
    }
    p->is_waiting = 0;
    answered++;
    if (subscriber_count == 0) note(now() - p->due_at);
    return 1;
}

static void open_publishers(size_t count) {
    while (publisher_count < count) {
        struct publisher *p = &publishers[publisher_count];
        p->fd = dial(port);
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = publisher_count};
        if (epoll_ctl(publishing_poller, EPOLL_CTL_ADD, p->fd, &event) < 0) die("epoll_ctl");
        publisher_count++;
    }
}

static void run(const char *mode, double amount, double of) {
    int is_wait = strcmp(mode, "wait") == 0, is_burst = strcmp(mode, "burst") == 0;
    int is_pace = strcmp(mode, "pace") == 0, is_count = strcmp(mode, "count") == 0;
    size_t senders = is_pace ? 1 : (size_t)of;
    if (senders > MAX_PUBLISHERS || !(is_wait || is_burst || is_pace || is_count)) die("no such run: %s", mode);
    open_publishers(senders);
    deliveries = published = answered = 0;
    memset(buckets, 0, sizeof buckets);

    double started_at = now(), next_at = started_at, moved_at = started_at;
    double until = is_wait || is_pace ? started_at + amount : 0;
    size_t to_send = is_burst ? (size_t)amount * senders : is_count ? (size_t)amount : request_count;
    if (!is_pace) {
        for (size_t i = 0; i < senders && published < to_send; i++) publish_next(&publishers[i]);
    }
    for (;;) {
        double at = now();
        int is_sending = (until == 0 || at < until) && published < to_send && next_request < request_count;
        int is_settled = answered == published && deliveries == published * subscriber_count;
        if (is_settled && !is_sending) break;
        if (is_settled && is_burst) {
            for (size_t i = 0; i < senders; i++) publish_next(&publishers[i]);
        }
        int wait_ms = 1000;
        if (is_pace && is_sending) {
            if (at >= next_at && !publishers[0].is_waiting) {
                publish_next(&publishers[0]);
                publishers[0].due_at = next_at;
                next_at += 1 / of;
                continue;
            }
            wait_ms = at >= next_at ? 1000 : (int)(1e3 * (next_at - at)) + 1;
        }
        // Few at a time: publishers, elsewhere in real life, don't wait until a thousand subscribers have read.
        struct epoll_event events[16];
        int count = epoll_wait(poller, events, 16, wait_ms);
        if (count > 0) moved_at = now();
        if (now() - moved_at > GIVE_UP_S || at - started_at > MAX_RUN_S) break;
        for (int i = 0; i < count; i++) {
            if (events[i].data.u64 < subscriber_count) receive(&subscribers[events[i].data.u64]);
        }
        count = epoll_wait(publishing_poller, events, 16, 0);
        for (int i = 0; i < count; i++) {
            struct publisher *p = &publishers[events[i].data.u64];
            if (receive_answer(p) && (is_wait || is_count)) {
                if ((until == 0 || now() < until) && published < to_send) publish_next(p);
            }
        }
    }
    double ended_at = now();
    printf(
        "{\"published\": %zu, \"answered\": %zu, \"deliveries\": %llu, \"expected\": %zu, \"seconds\": %.6f, "
        "\"p50_ms\": %.3f, \"p99_ms\": %.3f}\n",
        published, answered, (unsigned long long)deliveries, published * subscriber_count, ended_at - started_at,
        quantile_ms(0.5), quantile_ms(0.99));
    fflush(stdout);
}

static void read_requests(const char *name) {
    FILE *file = fopen(name, "rb");
    if (file == NULL) die("%s", name);
    uint32_t length;
    while (fread(&length, sizeof length, 1, file) == 1) {
        requests = realloc(requests, (request_count + 1) * sizeof *requests);
        request_lengths = realloc(request_lengths, (request_count + 1) * sizeof *request_lengths);
        requests[request_count] = malloc(length);
        request_lengths[request_count] = length;
        if (fread(requests[request_count], 1, length, file) != length) die("%s is cut off", name);
        request_count++;
    }
    fclose(file);
    request_sent_at = calloc(request_count, sizeof *request_sent_at);
}

int main(int argc, char **argv) {
    if (argc < 2 || argc % 2 != 0) die("usage: load PORT [OPTION VALUE]...");
    port = atoi(argv[1]);
    for (int i = 2; i < argc; i += 2) {
        const char *option = argv[i], *value = argv[i + 1];
        if (strcmp(option, "subscribers") == 0) subscriber_count = strtoul(value, NULL, 10);
        else if (strcmp(option, "path") == 0) path = value;
        else if (strcmp(option, "steps") == 0) steps = value;
        else if (strcmp(option, "requests") == 0) read_requests(value);
        else die("no such option: %s", option);
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    publishing_poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event publishing = {.events = EPOLLIN, .data.u64 = UINT64_MAX};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, publishing_poller, &publishing) < 0) die("epoll_ctl");
    subscribers = calloc(subscriber_count + 1, sizeof *subscribers);
    for (size_t i = 0; i < subscriber_count; i++) subscribe(&subscribers[i]);
    printf("ready\n");
    fflush(stdout);
    char line[256], mode[16];
    while (fgets(line, sizeof line, stdin) != NULL) {
        double amount = 0, of = 1;
        if (sscanf(line, "%15s %lf %lf", mode, &amount, &of) < 2) die("no run: %s", line);
        run(mode, amount, of);
    }
    return 0;
}
