/* Reads the compressed data of a JPEG file (ITU-T T.81: Huffman codes, sequential and progressive) without decoding its
   pixels, and says whether it ends where the image ends. Decoders only warn about data that is damaged inside, and the
   rest of the image is grey or garbled. Compiled when the package is installed, if there is a compiler; called by
   images.py. No Python in here: a call holds no lock. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../loops.h"

enum { WHOLE = 0, ENDS_EARLY = 1, LEFT_OVER = 2, BAD_CODE = 3, NOT_READ = 4 }; /* as in images.py */

#define LOOK 11 /* bits of a code that are looked up at once */
#define PADDING 64 /* bits after the last code that some cameras add */
#define MAX_COMPONENTS 4

typedef struct {
    uint16_t look[1 << LOOK]; /* length << 8 | symbol of codes up to LOOK bits; 0 for longer ones */
    int32_t last[18]; /* largest code of each length, -1 where there is none; a code of 17 bits ends every search */
    int32_t offset[17]; /* index of a symbol minus its code */
    uint8_t symbols[256];
    int present;
} Table;

typedef struct {
    int id, h, v, dc, ac;
    int64_t wide, high; /* blocks, without those that only fill up an interleaved unit */
    int64_t stride;
    uint64_t *nonzero; /* progressive: a bit for each coefficient of each block */
    uint64_t sent, rough; /* progressive: a bit for each coefficient that was sent, and that lacks its last bits */
} Component;

typedef struct {
    const uint8_t *at, *end;
    uint64_t bits; /* the next bits, from the highest on */
    int count, zeros; /* bits there; how many of them were put in after a marker */
} Reader;

typedef struct {
    Table dc[4], ac[4];
    Component components[MAX_COMPONENTS];
    int num_components, progressive, quantised, hmax, vmax;
    int64_t width, height, interval;
} Frame;

typedef struct {
    Component *members[MAX_COMPONENTS];
    int count, first, last, high, low; /* Ss, Se, Ah, Al */
    int64_t run; /* blocks that still end at once (EOBRUN) */
} Scan;

static inline void fill(Reader *reader)
{
    if (reader->count <= 32 && reader->end - reader->at >= 4) { /* four bytes at once, if none of them is 0xFF */
        const uint8_t *at = reader->at;
        uint32_t four = (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
        if (((~four - 0x01010101u) & four & 0x80808080u) == 0) {
            reader->bits |= (uint64_t)four << (32 - reader->count);
            reader->count += 32;
            reader->at += 4;
            return;
        }
    }
    while (reader->count <= 56) {
        uint64_t byte = 0;
        if (reader->at < reader->end && reader->at[0] != 0xFF)
            byte = *reader->at++;
        else if (reader->at + 1 < reader->end && reader->at[1] == 0) {
            byte = 0xFF;
            reader->at += 2;
        } else
            reader->zeros += 8;
        reader->bits |= byte << (56 - reader->count);
        reader->count += 8;
    }
}

static inline void drop(Reader *reader, int count)
{
    reader->bits <<= count;
    reader->count -= count;
}

static inline int take(Reader *reader, int count) /* up to 16 bits */
{
    if (count == 0)
        return 0;
    if (reader->count < count)
        fill(reader);
    int value = (int)(reader->bits >> (64 - count));
    drop(reader, count);
    return value;
}

static inline int symbol(Reader *reader, const Table *table) /* -1 for a code that there is not */
{
    if (reader->count < 32)
        fill(reader);
    uint16_t found = table->look[reader->bits >> (64 - LOOK)];
    if (found) {
        drop(reader, found >> 8);
        return found & 255;
    }
    for (int length = LOOK + 1; length <= 16; length++) {
        int32_t code = (int32_t)(reader->bits >> (64 - length));
        if (code <= table->last[length]) {
            drop(reader, length);
            int index = code + table->offset[length];
            return index >= 0 && index < 256 ? table->symbols[index] : -1;
        }
    }
    return -1;
}

static int ran_out(const Reader *reader)
{
    return reader->count < reader->zeros;
}

static int build(Table *table, const uint8_t *counts, const uint8_t *symbols, int total)
{
    memset(table, 0, sizeof *table);
    memcpy(table->symbols, symbols, (size_t)total);
    int32_t code = 0, index = 0;
    for (int length = 1; length <= 16; length++) {
        table->offset[length] = index - code;
        table->last[length] = -1;
        for (int i = 0; i < counts[length - 1]; i++, code++, index++) {
            if (code >= 1 << length)
                return 0;
            if (length <= LOOK)
                for (int rest = 0; rest < 1 << (LOOK - length); rest++)
                    table->look[(code << (LOOK - length)) + rest] = (uint16_t)(length << 8 | symbols[index]);
            table->last[length] = code;
        }
        code <<= 1;
    }
    table->present = 1;
    return 1;
}

static int read_block(Reader *reader, const Table *dc, const Table *ac)
{
    int size = symbol(reader, dc);
    if (size < 0 || size > 15)
        return BAD_CODE;
    take(reader, size);
    for (int k = 1; k < 64; k++) {
        if (reader->count < 32)
            fill(reader);
        uint16_t quick = ac->look[reader->bits >> (64 - LOOK)];
        int found = quick ? quick & 255 : symbol(reader, ac);
        if (found < 0)
            return BAD_CODE;
        int run = found >> 4, bits = found & 15;
        drop(reader, (quick >> 8) + (quick ? bits : 0));
        if (!quick)
            take(reader, bits);
        if (bits == 0 && run != 15)
            break;
        k += run;
        if (k > 63)
            return BAD_CODE;
    }
    return WHOLE;
}

/* The coefficients Ss..Se of a block, the first time */
static int read_first(Reader *reader, Scan *scan, const Table *ac, uint64_t *nonzero)
{
    if (scan->run > 0) {
        scan->run--;
        return WHOLE;
    }
    for (int k = scan->first; k <= scan->last; k++) {
        int found = symbol(reader, ac);
        if (found < 0)
            return BAD_CODE;
        int run = found >> 4, bits = found & 15;
        if (bits == 0 && run != 15) {
            scan->run = (1 << run) + take(reader, run) - 1;
            return WHOLE;
        }
        k += run;
        if (k > scan->last)
            return BAD_CODE;
        take(reader, bits);
        if (bits)
            *nonzero |= 1ull << k;
    }
    return WHOLE;
}

/* One more bit of each of the coefficients Ss..Se that are not zero, and new ones */
static int read_again(Reader *reader, Scan *scan, const Table *ac, uint64_t *nonzero)
{
    int k = scan->first;
    if (scan->run == 0)
        for (; k <= scan->last; k++) {
            int found = symbol(reader, ac);
            if (found < 0 || (found & 15) > 1)
                return BAD_CODE;
            int run = found >> 4, is_new = found & 15;
            if (!is_new && run != 15) {
                scan->run = (1 << run) + take(reader, run);
                break;
            }
            take(reader, is_new);
            for (; k <= scan->last; k++)
                if (*nonzero >> k & 1)
                    take(reader, 1);
                else if (--run < 0)
                    break;
            if (is_new && k > scan->last)
                return BAD_CODE;
            if (is_new)
                *nonzero |= 1ull << k;
        }
    if (scan->run > 0) {
        for (; k <= scan->last; k++)
            if (*nonzero >> k & 1)
                take(reader, 1);
        scan->run--;
    }
    return WHOLE;
}

static int read_part(Reader *reader, const Frame *frame, Scan *scan, Component *component, int64_t block)
{
    const Table *dc = &frame->dc[component->dc], *ac = &frame->ac[component->ac];
    if (!frame->progressive)
        return read_block(reader, dc, ac);
    if (scan->first > 0)
        return scan->high ? read_again(reader, scan, ac, component->nonzero + block)
                          : read_first(reader, scan, ac, component->nonzero + block);
    if (scan->high) {
        take(reader, 1);
        return WHOLE;
    }
    int size = symbol(reader, dc);
    if (size < 0 || size > 15)
        return BAD_CODE;
    take(reader, size);
    return WHOLE;
}

static int read_unit(Reader *reader, const Frame *frame, Scan *scan, int64_t unit, int64_t across)
{
    int state = WHOLE;
    if (scan->count == 1) {
        Component *component = scan->members[0];
        return read_part(reader, frame, scan, component, unit / across * component->stride + unit % across);
    }
    for (int i = 0; i < scan->count; i++) {
        Component *component = scan->members[i];
        for (int part = 0; part < component->h * component->v && state == WHOLE; part++) {
            int64_t row = unit / across * component->v + part / component->h;
            int64_t column = unit % across * component->h + part % component->h;
            state = read_part(reader, frame, scan, component, row * component->stride + column);
        }
    }
    return state;
}

/* After the last code before a marker: nothing but some padding is left */
static int finish(Reader *reader)
{
    while (reader->count <= 56)
        fill(reader);
    if (ran_out(reader))
        return ENDS_EARLY;
    if (reader->count - reader->zeros >= PADDING - 7)
        return LEFT_OVER;
    return WHOLE;
}

static int next_interval(Reader *reader, Scan *scan, int number)
{
    int state = finish(reader);
    if (state != WHOLE)
        return state;
    while (reader->at + 1 < reader->end && reader->at[0] == 0xFF && reader->at[1] == 0xFF)
        reader->at++;
    if (reader->at + 1 >= reader->end || reader->at[0] != 0xFF || reader->at[1] != 0xD0 + number % 8)
        return BAD_CODE;
    reader->at += 2;
    reader->bits = 0;
    reader->count = reader->zeros = 0;
    scan->run = 0;
    return WHOLE;
}

static int read_scan(Reader *reader, const Frame *frame, Scan *scan)
{
    int64_t across = (frame->width + 8 * frame->hmax - 1) / (8 * frame->hmax);
    int64_t down = (frame->height + 8 * frame->vmax - 1) / (8 * frame->vmax);
    if (scan->count == 1) {
        across = scan->members[0]->wide;
        down = scan->members[0]->high;
    }
    for (int64_t unit = 0; unit < across * down; unit++) {
        int state = WHOLE;
        if (frame->interval && unit && unit % frame->interval == 0)
            state = next_interval(reader, scan, (int)(unit / frame->interval - 1) % 8);
        if (state == WHOLE)
            state = read_unit(reader, frame, scan, unit, across);
        if (ran_out(reader))
            return ENDS_EARLY;
        if (state != WHOLE)
            return state;
    }
    return scan->run > 0 ? BAD_CODE : finish(reader);
}

static int read_tables(Frame *frame, const uint8_t *at, const uint8_t *end)
{
    while (at < end) {
        int total = 0;
        if (end - at < 17)
            return NOT_READ;
        for (int i = 0; i < 16; i++)
            total += at[1 + i];
        if (total > 256 || end - at < 17 + total || (at[0] & 15) > 3 || at[0] >> 4 > 1)
            return NOT_READ;
        if (!build(at[0] >> 4 ? &frame->ac[at[0] & 15] : &frame->dc[at[0] & 15], at + 1, at + 17, total))
            return NOT_READ;
        at += 17 + total;
    }
    return WHOLE;
}

static int read_frame(Frame *frame, const uint8_t *at, int64_t length, int progressive)
{
    if (length < 6 || frame->num_components || at[0] != 8 || at[5] < 1 || at[5] > MAX_COMPONENTS || length < 6 + 3 * at[5])
        return NOT_READ;
    frame->progressive = progressive;
    frame->height = at[1] << 8 | at[2];
    frame->width = at[3] << 8 | at[4];
    frame->num_components = at[5];
    for (int i = 0; i < at[5]; i++) {
        Component *component = &frame->components[i];
        component->id = at[6 + 3 * i];
        component->h = at[7 + 3 * i] >> 4;
        component->v = at[7 + 3 * i] & 15;
        if (component->h < 1 || component->h > 4 || component->v < 1 || component->v > 4)
            return NOT_READ;
        frame->hmax = component->h > frame->hmax ? component->h : frame->hmax;
        frame->vmax = component->v > frame->vmax ? component->v : frame->vmax;
    }
    if (frame->width < 1 || frame->height < 1) /* the height may follow the first scan (DNL) */
        return NOT_READ;
    for (int i = 0; i < at[5]; i++) {
        Component *component = &frame->components[i];
        int64_t columns = (frame->width * component->h + frame->hmax - 1) / frame->hmax;
        int64_t rows = (frame->height * component->v + frame->vmax - 1) / frame->vmax;
        component->wide = (columns + 7) / 8;
        component->high = (rows + 7) / 8;
        component->stride = (frame->width + 8 * frame->hmax - 1) / (8 * frame->hmax) * component->h;
        int64_t down = (frame->height + 8 * frame->vmax - 1) / (8 * frame->vmax) * component->v;
        if (progressive && !(component->nonzero = calloc((size_t)(component->stride * down), sizeof(uint64_t))))
            return NOT_READ;
    }
    return WHOLE;
}

static int start_scan(Frame *frame, Scan *scan, const uint8_t *at, int64_t length)
{
    int count = length > 0 ? at[0] : 0;
    if (!frame->quantised || count < 1 || count > frame->num_components || length < 4 + 2 * count)
        return NOT_READ;
    memset(scan, 0, sizeof *scan);
    scan->count = count;
    const uint8_t *rest = at + 1 + 2 * count;
    scan->first = rest[0];
    scan->last = rest[1];
    scan->high = rest[2] >> 4;
    scan->low = rest[2] & 15;
    if (frame->progressive && (scan->last > 63 || scan->first > scan->last || (scan->first > 0 && count > 1)))
        return NOT_READ;
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < frame->num_components; j++)
            if (frame->components[j].id == at[1 + 2 * i])
                scan->members[i] = &frame->components[j];
        if (!scan->members[i])
            return NOT_READ;
        int dc = at[2 + 2 * i] >> 4, ac = at[2 + 2 * i] & 15;
        int needs_dc = !frame->progressive || (scan->first == 0 && !scan->high);
        int needs_ac = !frame->progressive || scan->first > 0;
        if (dc > 3 || ac > 3 || (needs_dc && !frame->dc[dc].present) || (needs_ac && !frame->ac[ac].present))
            return NOT_READ;
        scan->members[i]->dc = dc;
        scan->members[i]->ac = ac;
        uint64_t these = frame->progressive ? (~0ull >> (63 - scan->last)) & (~0ull << scan->first) : 0;
        scan->members[i]->sent |= these;
        scan->members[i]->rough = scan->low ? scan->members[i]->rough | these : scan->members[i]->rough & ~these;
    }
    return WHOLE;
}

/* At the end of the file: a progressive one may lack its last scans */
static int is_refined(const Frame *frame)
{
    for (int i = 0; i < frame->num_components && frame->progressive; i++)
        if (frame->components[i].rough || !(frame->components[i].sent & 1))
            return 0;
    return frame->num_components > 0;
}

static int read_file(Frame *frame, const uint8_t *data, int64_t size)
{
    int64_t at = 2;
    while (at + 4 <= size) {
        if (data[at] != 0xFF)
            return BAD_CODE;
        if (data[at + 1] == 0xFF) {
            at++;
            continue;
        }
        int marker = data[at + 1];
        if (marker == 0xD9)
            return is_refined(frame) ? WHOLE : ENDS_EARLY;
        int64_t length = (data[at + 2] << 8 | data[at + 3]) - 2;
        const uint8_t *body = data + at + 4;
        if (length < 0 || at + 4 + length > size)
            return ENDS_EARLY;
        int state = WHOLE;
        if (marker == 0xC4)
            state = read_tables(frame, body, body + length);
        else if (marker >= 0xC0 && marker <= 0xC2)
            state = read_frame(frame, body, length, marker == 0xC2);
        else if (marker >= 0xC3 && marker <= 0xCF && marker != 0xC8)
            state = NOT_READ; /* arithmetic codes, lossless, hierarchical */
        else if (marker == 0xDB)
            frame->quantised = 1;
        else if (marker == 0xDD && length >= 2)
            frame->interval = body[0] << 8 | body[1];
        else if (marker < 0xDA || (marker > 0xDD && marker < 0xE0) || (marker > 0xEF && marker != 0xFE))
            state = BAD_CODE;
        at += 4 + length;
        if (marker == 0xDA) {
            Scan scan;
            Reader reader = {data + at, data + size, 0, 0, 0};
            state = start_scan(frame, &scan, body, length);
            if (state == WHOLE)
                state = read_scan(&reader, frame, &scan);
            at = reader.at - data;
        }
        if (state != WHOLE)
            return state;
    }
    while (at + 2 < size && data[at] == 0xFF && data[at + 1] == 0xFF)
        at++;
    return at + 2 <= size && data[at] == 0xFF && data[at + 1] == 0xD9 && is_refined(frame) ? WHOLE : ENDS_EARLY;
}

/* Whether the compressed data of a JPEG file of `size` bytes is whole: one of the states above */
EXPORT int64_t lpsnet_jpeg_state(const uint8_t *data, int64_t size)
{
    Frame *frame = calloc(1, sizeof *frame);
    int state = frame ? read_file(frame, data, size) : NOT_READ;
    for (int i = 0; frame && i < MAX_COMPONENTS; i++)
        free(frame->components[i].nonzero);
    free(frame);
    return state;
}
