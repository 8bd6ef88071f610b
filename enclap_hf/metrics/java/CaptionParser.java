package edu.anu.spice;

import edu.stanford.nlp.pipeline.Annotation;
import edu.stanford.nlp.pipeline.StanfordCoreNLP;
import java.io.PrintStream;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.json.simple.JSONValue;

/**
 * Parses captions with SPICE's own parser in several threads and prints each parse as soon as it is there.
 *
 * SPICE parses all captions before it hands out the first. Here each thread takes the next caption of the list, so the
 * order of the list is the order of the work, and whoever reads the output can keep what is done.
 *
 * Lines of output, where N is the caption's place in the list:
 *   ready            the models are loaded
 *   start N          a thread begins with the caption
 *   parse N TUPLES   its tuples, a JSON list of lists of words
 *   failed N         the parser threw something; what it was is on the error stream
 */
class CaptionParser {

    // Trees of long captions are deep, and the parser walks them by recursion.
    private static final long STACK_BYTES = 64L << 20;

    private final List<String> captions;
    private final PrintStream answers;
    private final AtomicInteger next = new AtomicInteger();
    private final AtomicInteger numFailed = new AtomicInteger();
    private final SpiceParser tupleMaker;
    private final StanfordCoreNLP pipeline;

    CaptionParser(List<String> captions, int numThreads, PrintStream answers) {
        this.captions = captions;
        this.answers = answers;
        tupleMaker = new SpiceParser(null, numThreads, true);
        // The pipeline is made, with SPICE's options, when the first caption is parsed.
        tupleMaker.annotator.setInput(Collections.singletonList("a dog barks"));
        tupleMaker.annotator.parseNextBatch();
        pipeline = tupleMaker.annotator.pipeline;
        say("ready");
    }

    /** Parses all captions; true when none failed. */
    boolean parseAll(int numThreads) throws InterruptedException {
        List<Thread> threads = new ArrayList<>();
        for (int index = 0; index < Math.min(numThreads, captions.size()); index++) {
            Thread thread = new Thread(null, this::takeCaptions, "parser-" + index, STACK_BYTES);
            threads.add(thread);
            thread.start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        return numFailed.get() == 0;
    }

    private void takeCaptions() {
        for (int index = next.getAndIncrement(); index < captions.size(); index = next.getAndIncrement()) {
            say("start " + index);
            try {
                ArrayList<ArrayList<String>> tuples = parse(captions.get(index));
                LmdbTupleDB.PARSES.put(captions.get(index), tuples);
                say("parse " + index + " " + escape(JSONValue.toJSONString(tuples)));
            } catch (Throwable problem) {
                numFailed.incrementAndGet();
                problem.printStackTrace();
                say("failed " + index);
            }
        }
    }

    private ArrayList<ArrayList<String>> parse(String caption) {
        Annotation annotation = new Annotation(caption);
        pipeline.annotate(annotation);
        synchronized (tupleMaker) { // SPICE makes tuples in one thread only
            return tupleMaker.parseAnnotation(annotation).tuples;
        }
    }

    private void say(String line) {
        synchronized (answers) {
            answers.println(line);
            answers.flush();
        }
    }

    /** ASCII only: half of a surrogate pair would not survive an encoding. */
    static String escape(String json) {
        StringBuilder escaped = new StringBuilder(json.length());
        for (char letter : json.toCharArray()) {
            if (letter < 127) {
                escaped.append(letter);
            } else {
                escaped.append(String.format("\\u%04x", (int) letter));
            }
        }
        return escaped.toString();
    }
}
